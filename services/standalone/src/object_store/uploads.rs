//! Multipart uploads: a folder of parts that becomes one object. Everything here blocks.

use std::fs;
use std::io;
use std::path::PathBuf;

use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use serde::{Deserialize, Serialize};

use super::blob::{Blob, Headers, Incoming, Metadata};
use super::conditions::Conditions;
use super::credentials::random;
use super::disk::{Disk, StoreError, sync_folder};
use super::keys;

/// S3's smallest part that is not the last.
const PART_BYTES_MIN: u64 = 5 << 20;

/// What an upload was begun for.
#[derive(Serialize, Deserialize)]
struct Upload {
    bucket: String,
    key: String,
    headers: Headers,
}

/// A part that has arrived.
pub(super) struct Part {
    pub(super) number: u32,
    pub(super) metadata: Metadata,
    pub(super) length: u64,
}

impl Disk {
    /// Begins an upload; answers its id.
    pub(super) fn begin_upload(
        &self,
        bucket: &str,
        key: &str,
        headers: Headers,
    ) -> Result<String, StoreError> {
        keys::check(key).map_err(StoreError::InvalidKey)?;
        self.require_bucket(bucket)?;
        let id = hex::encode(random::<16>()?);
        let folder = self.uploads.join(&id);
        let upload = Upload { bucket: bucket.to_string(), key: key.to_string(), headers };
        let text = serde_json::to_vec(&upload).map_err(io::Error::other)?;
        fs::create_dir(&folder).map_err(|error| self.refused(error))?;
        fs::write(folder.join("upload.json"), text).map_err(|error| self.refused(error))?;
        sync_folder(&self.uploads)?;
        Ok(id)
    }

    /// Where part `number` of an upload goes.
    pub(super) fn place_part(
        &self,
        incoming: Incoming,
        (bucket, key): (&str, &str),
        id: &str,
        number: u32,
    ) -> Result<(), StoreError> {
        let (folder, _) = self.upload(bucket, key, id)?;
        match fs::rename(incoming.path(), folder.join(part_name(number))) {
            Ok(()) => {
                incoming.placed();
                Ok(sync_folder(&folder)?)
            }
            // Completed or aborted meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::NoSuchUpload),
            Err(error) => Err(self.refused(error)),
        }
    }

    /// The parts that have arrived, in order.
    pub(super) fn parts(&self, bucket: &str, key: &str, id: &str) -> Result<Vec<Part>, StoreError> {
        let (folder, _) = self.upload(bucket, key, id)?;
        let mut parts = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let (metadata, length) = Blob::inspect(&entry.path())?;
            parts.push(Part { number, metadata, length });
        }
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    /// Joins the listed parts into the object; answers its etag.
    pub(super) fn complete_upload(
        &self,
        (bucket, key): (&str, &str),
        id: &str,
        listed: &[(u32, String)],
        conditions: &Conditions,
    ) -> Result<String, StoreError> {
        let (folder, upload) = self.upload(bucket, key, id)?;
        if listed.is_empty() || !listed.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(StoreError::InvalidPartOrder);
        }
        let arrived = self.parts(bucket, key, id)?;
        let mut etags = Md5::new();
        for (index, (number, etag)) in listed.iter().enumerate() {
            let part = arrived.iter().find(|part| part.number == *number && part.metadata.etag == *etag);
            let part = part.ok_or(StoreError::InvalidPart(*number))?;
            if part.length < PART_BYTES_MIN && index + 1 < listed.len() {
                return Err(StoreError::PartTooSmall);
            }
            etags.update(&hex::decode(&part.metadata.etag).map_err(io::Error::other)?);
        }
        let mut writer = self.writer(ChecksumHasher::default())?;
        for (number, _) in listed {
            writer.append(&folder.join(part_name(*number))).map_err(|error| self.refused(error))?;
        }
        let etag = format!("{}-{}", hex::encode(etags.finalize()), listed.len());
        let sealed = writer.end().seal(etag.clone(), upload.headers);
        let (incoming, _) = sealed.map_err(|error| self.refused(error))?;
        self.place(incoming, bucket, key, conditions)?;
        // A crash before this line leaves parts behind that can be aborted or completed again.
        fs::remove_dir_all(&folder)?;
        Ok(etag)
    }

    /// Forgets an upload and its parts.
    pub(super) fn abort_upload(&self, bucket: &str, key: &str, id: &str) -> Result<(), StoreError> {
        let (folder, _) = self.upload(bucket, key, id)?;
        Ok(fs::remove_dir_all(folder)?)
    }

    fn upload(&self, bucket: &str, key: &str, id: &str) -> Result<(PathBuf, Upload), StoreError> {
        // An id is a path: only one that we could have made is looked up.
        if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(StoreError::NoSuchUpload);
        }
        let folder = self.uploads.join(id);
        let text = fs::read(folder.join("upload.json")).map_err(|_| StoreError::NoSuchUpload)?;
        let upload: Upload = serde_json::from_slice(&text).map_err(|_| StoreError::NoSuchUpload)?;
        if upload.bucket == bucket && upload.key == key {
            Ok((folder, upload))
        } else {
            Err(StoreError::NoSuchUpload)
        }
    }
}

fn part_name(number: u32) -> String {
    format!("{number:05}")
}
