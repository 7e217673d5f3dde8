//! The embedded object store: a real S3 server over a folder.
//!
//! It speaks enough of S3 for the real client (get, head, put, list, multipart, delete; signature version 4
//! always on), so that standalone and every end-to-end test fetch media through the same code as a fleet
//! does. What it acknowledged is on the disk, and a kill at any instruction leaves an object whole: the
//! old one or the new one.
//!
//! On disk: `buckets/<bucket>/…` holds one file per object at a path made from its key (`keys`), each with
//! its metadata at its own end (`blob`); `uploads/<id>/` the parts of unfinished multipart uploads;
//! `incoming/` what is being written, emptied at start; `credentials.toml` (mode 0600) the key pair made at
//! the first start. There is no index beside the files that could disagree with them.

mod blob;
mod conditions;
mod credentials;
mod disk;
mod keys;
mod listing;
mod receive;
mod s3;
mod server;
mod uploads;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use credentials::Credentials;
pub use server::ObjectStoreServer;

use disk::Disk;

/// A folder with buckets in it, owned by this process alone.
#[derive(Clone)]
pub struct ObjectStore {
    disk: Arc<Disk>,
    credentials: Credentials,
}

impl ObjectStore {
    /// Opens the store in `folder`, making both the folder and the credentials at the first start.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let refused = |source| OpenError::Folder { folder: folder.to_path_buf(), source };
        std::fs::create_dir_all(folder).map_err(refused)?;
        let disk = Disk::open(folder).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse { folder: folder.to_path_buf() },
            _ => refused(source),
        })?;
        let credentials = Credentials::load_or_make(&folder.join("credentials.toml")).map_err(refused)?;
        Ok(ObjectStore { disk: Arc::new(disk), credentials })
    }

    /// The key pair that clients sign with.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Makes `bucket` if it is not there: for start-up, before anybody can ask over S3.
    pub fn ensure_bucket(&self, bucket: &str) -> Result<(), OpenError> {
        let refused = |source| OpenError::Folder { folder: self.disk.bucket(bucket), source };
        if !s3s::path::check_bucket_name(bucket) {
            return Err(refused(io::Error::new(io::ErrorKind::InvalidInput, "not a bucket name")));
        }
        match self.disk.create_bucket(bucket) {
            Ok(()) | Err(disk::StoreError::BucketExists) => Ok(()),
            Err(error) => Err(refused(io::Error::other(error))),
        }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two processes over one folder would not see each other's writes in order.
    #[error("object store {}: another process uses it", folder.display())]
    InUse {
        /// The store's folder.
        folder: PathBuf,
    },
    /// The folder cannot be read or written.
    #[error("object store {}: {source}", folder.display())]
    Folder {
        /// The folder that was refused.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl From<OpenError> for ops::Exit {
    fn from(error: OpenError) -> Self {
        ops::ExitReason::Unavailable.because(error)
    }
}
