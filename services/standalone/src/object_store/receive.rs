//! Bodies: from the connection to the disk, checked against what the client promised.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use s3s::TrailingHeaders;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
use s3s::dto::{Checksum, StreamingBlob};

use super::blob::{Writer, Written};
use super::disk::{Disk, StoreError};

/// Bytes collected before they go to the disk: a small object costs one hop to a blocking thread. Chosen.
const COLLECTED_BYTES: usize = 1 << 20;

/// S3's own limit for one PUT and for one part.
const BODY_BYTES_MAX: u64 = 5 << 30;

/// What the request says its body will be.
#[derive(Default)]
pub(super) struct Promise {
    pub(super) md5: Option<String>,
    pub(super) checksums: Checksum,
    /// Checksums that follow the body, and the request's `x-amz-trailer` that names them.
    pub(super) trailers: Option<(TrailingHeaders, String)>,
}

/// Writes a body into a new file and hands it, verified, to `finish`, on a blocking thread.
pub(super) async fn receive<T: Send + 'static>(
    disk: &Arc<Disk>,
    body: Option<StreamingBlob>,
    promise: Promise,
    finish: impl FnOnce(&Disk, Written) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let mut writer = None;
    let mut chunks = Chunks::default();
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            chunks.push(chunk.map_err(|error| StoreError::Body(error.to_string()))?);
            if chunks.bytes >= COLLECTED_BYTES {
                let (disk, full) = (Arc::clone(disk), std::mem::take(&mut chunks));
                let hasher = promise.hasher();
                writer = Some(blocking(move || full.write(&disk, writer, hasher)).await?);
            }
        }
    }
    let disk = Arc::clone(disk);
    blocking(move || {
        let written = chunks.write(&disk, writer, promise.hasher())?.end();
        promise.verify(&written)?;
        finish(&disk, written)
    })
    .await
}

/// Runs `work` where it may block. The number of callers is bounded by the number of connections.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Io(std::io::Error::other(error))),
    }
}

#[derive(Default)]
struct Chunks {
    chunks: Vec<Bytes>,
    bytes: usize,
}

impl Chunks {
    fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        self.chunks.push(chunk);
    }

    fn write(
        self,
        disk: &Disk,
        writer: Option<Writer>,
        hasher: ChecksumHasher,
    ) -> Result<Writer, StoreError> {
        let mut writer = match writer {
            Some(writer) => writer,
            None => disk.writer(hasher)?,
        };
        for chunk in &self.chunks {
            writer.write(chunk).map_err(|error| disk.refused(error))?;
        }
        if writer.length() > BODY_BYTES_MAX { Err(StoreError::TooLarge) } else { Ok(writer) }
    }
}

impl Promise {
    fn hasher(&self) -> ChecksumHasher {
        let names = self.trailers.as_ref().map_or("", |(_, names)| names.as_str());
        let promised = |field: &Option<String>, name: &str| field.is_some() || names.contains(name);
        let given = &self.checksums;
        ChecksumHasher {
            // `crc32` begins `crc32c` as well; computing one too many is harmless.
            crc32: promised(&given.checksum_crc32, "x-amz-checksum-crc32").then(Crc32::new),
            crc32c: promised(&given.checksum_crc32c, "x-amz-checksum-crc32c").then(Crc32c::new),
            crc64nvme: promised(&given.checksum_crc64nvme, "x-amz-checksum-crc64nvme").then(Crc64Nvme::new),
            sha1: promised(&given.checksum_sha1, "x-amz-checksum-sha1").then(Sha1::new),
            sha256: promised(&given.checksum_sha256, "x-amz-checksum-sha256").then(Sha256::new),
        }
    }

    fn verify(&self, written: &Written) -> Result<(), StoreError> {
        if self.md5.as_ref().is_some_and(|promised| *promised != STANDARD.encode(written.md5)) {
            return Err(StoreError::BadDigest("Content-MD5"));
        }
        let (promised, found) = (&self.checksums, &written.checksums);
        let pairs = [
            ("x-amz-checksum-crc32", &promised.checksum_crc32, &found.checksum_crc32),
            ("x-amz-checksum-crc32c", &promised.checksum_crc32c, &found.checksum_crc32c),
            ("x-amz-checksum-crc64nvme", &promised.checksum_crc64nvme, &found.checksum_crc64nvme),
            ("x-amz-checksum-sha1", &promised.checksum_sha1, &found.checksum_sha1),
            ("x-amz-checksum-sha256", &promised.checksum_sha256, &found.checksum_sha256),
        ];
        for (name, promised, found) in pairs {
            let promised = promised.clone().or_else(|| self.trailer(name));
            if promised.is_some() && promised != *found {
                return Err(StoreError::BadDigest(name));
            }
        }
        Ok(())
    }

    fn trailer(&self, name: &str) -> Option<String> {
        let (trailers, _) = self.trailers.as_ref()?;
        trailers.read(|headers| Some(headers.get(name)?.to_str().ok()?.to_string()))?
    }
}
