//! One file: an object's bytes, then what is known about them.
//!
//! `bytes · metadata as JSON · its length as u32 little-endian · magic`. Metadata at the end can be written
//! after the last byte has arrived and hashed, and a reader of a small object gets both with one read.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use serde::{Deserialize, Serialize};

/// Ends every file; the digit is the version of the format.
const MAGIC: &[u8; 8] = b"TSBLOB1\n";
const TAIL: usize = 4 + MAGIC.len();

/// Files up to this size are read whole, by one read. Chosen: a 1 MiB object and its metadata.
const WHOLE_MAX: u64 = (1 << 20) + METADATA_GUESS;
/// Metadata of larger files is read with this much of their end. Chosen: S3 allows 2 KB of user metadata.
const METADATA_GUESS: u64 = 4096;

/// What is known about an object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Metadata {
    /// MD5 in hex, or MD5 of MD5s and `-N` after a multipart upload; without quotes.
    pub(super) etag: String,
    pub(super) modified_ms: u64,
    #[serde(default, skip_serializing_if = "Headers::is_empty")]
    pub(super) headers: Headers,
}

/// What the writer said about the object, given back with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Headers {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_disposition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cache_control: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) user: BTreeMap<String, String>,
}

impl Headers {
    fn is_empty(&self) -> bool {
        *self == Headers::default()
    }
}

impl Metadata {
    pub(super) fn modified(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.modified_ms)
    }
}

/// An object opened for reading: it stays the same even if it is replaced meanwhile.
pub(super) struct Blob {
    pub(super) metadata: Metadata,
    pub(super) length: u64,
    pub(super) content: Content,
}

/// The bytes of an object.
pub(super) enum Content {
    /// Already read.
    Whole(Bytes),
    /// Too large for that.
    File(File),
}

impl Blob {
    /// Opens a file for its bytes.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let file_length = file.metadata()?.len();
        if file_length > WHOLE_MAX {
            let (metadata, length) = read_metadata(&file, file_length)?;
            return Ok(Blob { metadata, length, content: Content::File(file) });
        }
        let mut all = Vec::with_capacity(usize::try_from(file_length).map_err(io::Error::other)?);
        Read::by_ref(&mut file).take(file_length).read_to_end(&mut all)?;
        let (metadata, length) = parse_tail(&all)?;
        let content = Content::Whole(Bytes::from(all).slice(..length));
        Ok(Blob { metadata, length: length as u64, content })
    }

    /// Opens a file for what is known about it: metadata and length.
    pub(super) fn inspect(path: &Path) -> io::Result<(Metadata, u64)> {
        let file = File::open(path)?;
        let file_length = file.metadata()?.len();
        read_metadata(&file, file_length)
    }
}

fn read_metadata(file: &File, file_length: u64) -> io::Result<(Metadata, u64)> {
    let mut wanted = METADATA_GUESS.min(file_length);
    loop {
        let mut end = vec![0; usize::try_from(wanted).map_err(io::Error::other)?];
        file.read_exact_at(&mut end, file_length - wanted)?;
        let needed = metadata_length(&end)? as u64 + TAIL as u64;
        if needed <= wanted {
            let (metadata, _) = parse_tail(&end)?;
            return Ok((metadata, file_length - needed));
        }
        if needed > file_length {
            return Err(damaged("metadata longer than the file"));
        }
        wanted = needed;
    }
}

fn metadata_length(end: &[u8]) -> io::Result<usize> {
    let tail = end.len().checked_sub(TAIL).map(|at| &end[at..]);
    let Some((length, magic)) = tail.and_then(|tail| tail.split_first_chunk::<4>()) else {
        return Err(damaged("shorter than its own end"));
    };
    if magic != MAGIC {
        return Err(damaged("does not end as an object does"));
    }
    usize::try_from(u32::from_le_bytes(*length)).map_err(io::Error::other)
}

/// Metadata, and where in `end` they begin.
fn parse_tail(end: &[u8]) -> io::Result<(Metadata, usize)> {
    let metadata_end = end.len().saturating_sub(TAIL);
    let start = metadata_end.checked_sub(metadata_length(end)?).ok_or_else(|| damaged("metadata cut off"))?;
    let metadata = serde_json::from_slice(&end[start..metadata_end]).map_err(io::Error::other)?;
    Ok((metadata, start))
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged object file: {why}"))
}

/// A file being written among the incoming ones; removed when dropped before it found its place.
pub(super) struct Incoming {
    path: PathBuf,
    placed: bool,
}

impl Incoming {
    fn new(path: PathBuf) -> Self {
        Incoming { path, placed: false }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Says that the file was renamed away.
    pub(super) fn placed(mut self) {
        self.placed = true;
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.placed {
            // What stays behind after a crash or an error here is removed at the next start.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Writes one file: bytes while they arrive, metadata at the end.
pub(super) struct Writer {
    file: File,
    incoming: Incoming,
    md5: Md5,
    checksums: ChecksumHasher,
    length: u64,
}

/// What was written, before its metadata: to be checked against what the client promised.
pub(super) struct Written {
    file: File,
    incoming: Incoming,
    pub(super) md5: [u8; 16],
    pub(super) checksums: s3s::dto::Checksum,
}

impl Writer {
    pub(super) fn create(path: PathBuf, checksums: ChecksumHasher) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Writer { file, incoming: Incoming::new(path), md5: Md5::new(), checksums, length: 0 })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.md5.update(bytes);
        self.checksums.update(bytes);
        self.length += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Appends the bytes of another blob without hashing them: the parts of a multipart upload, whose
    /// hashes are known.
    pub(super) fn append(&mut self, part: &Path) -> io::Result<()> {
        let (_, length) = Blob::inspect(part)?;
        let mut bytes = File::open(part)?.take(length);
        self.length += io::copy(&mut bytes, &mut self.file)?;
        Ok(())
    }

    pub(super) fn end(self) -> Written {
        let Writer { file, incoming, md5, checksums, .. } = self;
        Written { file, incoming, md5: md5.finalize(), checksums: checksums.finalize() }
    }
}

impl Written {
    /// Writes the metadata and waits until all of it is on the disk.
    pub(super) fn seal(mut self, etag: String, headers: Headers) -> io::Result<(Incoming, Metadata)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let metadata = Metadata { etag, modified_ms, headers };
        let mut tail = serde_json::to_vec(&metadata).map_err(io::Error::other)?;
        let length = u32::try_from(tail.len()).map_err(io::Error::other)?;
        tail.extend_from_slice(&length.to_le_bytes());
        tail.extend_from_slice(MAGIC);
        self.file.write_all(&tail)?;
        self.file.sync_all()?;
        Ok((self.incoming, metadata))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, bytes: &[u8], headers: Headers) -> Metadata {
        let mut writer = Writer::create(path.to_path_buf(), ChecksumHasher::default()).unwrap();
        writer.write(bytes).unwrap();
        let (incoming, metadata) = writer.end().seal("etag".into(), headers).unwrap();
        incoming.placed();
        metadata
    }

    #[test]
    fn both_ways_of_reading_agree() {
        let folder = tempfile::tempdir().unwrap();
        let user = BTreeMap::from([("note".to_string(), "x".repeat(6_000))]);
        let headers = [Headers::default(), Headers { user, ..Headers::default() }];
        for (index, size) in [0, 1, 70_000, 1 << 20, (1 << 20) + 5_000].into_iter().enumerate() {
            let path = folder.path().join(index.to_string());
            let bytes = vec![index as u8; size];
            let metadata = write(&path, &bytes, headers[index % 2].clone());
            assert_eq!(Blob::inspect(&path).unwrap(), (metadata.clone(), size as u64));
            let blob = Blob::open(&path).unwrap();
            assert_eq!((blob.metadata, blob.length), (metadata, size as u64));
            match blob.content {
                Content::Whole(whole) => assert_eq!(whole, bytes),
                Content::File(_) => assert!(size >= 1 << 20),
            }
        }
    }

    #[test]
    fn a_cut_file_is_damaged_not_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, b"hello", Headers::default());
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(Blob::open(&path).is_err() && Blob::inspect(&path).is_err(), "{length}");
        }
    }

    #[test]
    fn what_is_not_placed_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        drop(Writer::create(path.clone(), ChecksumHasher::default()).unwrap());
        assert!(!path.exists());
    }
}
