//! Buckets and objects as folders and files. Everything here blocks.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use s3s::checksum::ChecksumHasher;

use super::blob::{Blob, Incoming, Metadata, Writer};
use super::conditions::Conditions;
use super::keys;

/// Writers of one key take turns between looking (is there one already?) and placing. Chosen: enough
/// stripes that different keys rarely meet.
const STRIPES: usize = 64;

/// How often placing a file may find its folder swept away by a delete beside it. Chosen.
const PLACE_ATTEMPTS: usize = 16;

/// What the store says no with.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("the bucket does not exist")]
    NoSuchBucket,
    #[error("the bucket exists already")]
    BucketExists,
    #[error("the bucket is not empty")]
    BucketNotEmpty,
    #[error("the key does not exist")]
    NoSuchKey,
    #[error("{0}")]
    InvalidKey(&'static str),
    #[error("the upload does not exist")]
    NoSuchUpload,
    #[error("part {0} was not uploaded as it is listed")]
    InvalidPart(u32),
    #[error("parts are not listed in ascending order")]
    InvalidPartOrder,
    #[error("a part that is not the last is smaller than 5 MiB")]
    PartTooSmall,
    #[error("the object is larger than one upload may be")]
    TooLarge,
    #[error("the body does not match its {0}")]
    BadDigest(&'static str),
    #[error("a condition of the request does not hold")]
    PreconditionFailed,
    #[error("the object was not modified")]
    NotModified,
    #[error("the disk of the object store is full: {}", .0.display())]
    DiskFull(PathBuf),
    #[error("the body broke off: {0}")]
    Body(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The store's folder.
pub(super) struct Disk {
    root: PathBuf,
    buckets: PathBuf,
    incoming: PathBuf,
    pub(super) uploads: PathBuf,
    next_incoming: AtomicU64,
    stripes: [Mutex<()>; STRIPES],
    hasher: RandomState,
    /// Held as long as the store is open.
    _lock: File,
}

impl Disk {
    /// Takes the folder for this process; `WouldBlock` when another one has it.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let lock = File::create(root.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
            TryLockError::Error(error) => error,
        })?;
        let folder = |name: &str| root.join(name);
        let (buckets, incoming, uploads) = (folder("buckets"), folder("incoming"), folder("uploads"));
        if incoming.exists() {
            fs::remove_dir_all(&incoming)?;
        }
        for folder in [&buckets, &incoming, &uploads] {
            fs::create_dir_all(folder)?;
        }
        sync_folder(root)?;
        Ok(Disk {
            root: root.to_path_buf(),
            buckets,
            incoming,
            uploads,
            next_incoming: AtomicU64::new(0),
            stripes: [const { Mutex::new(()) }; STRIPES],
            hasher: RandomState::new(),
            _lock: lock,
        })
    }

    pub(super) fn bucket(&self, bucket: &str) -> PathBuf {
        self.buckets.join(bucket)
    }

    pub(super) fn require_bucket(&self, bucket: &str) -> Result<PathBuf, StoreError> {
        let folder = self.bucket(bucket);
        if folder.is_dir() { Ok(folder) } else { Err(StoreError::NoSuchBucket) }
    }

    pub(super) fn create_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        match fs::create_dir(self.bucket(bucket)) {
            Ok(()) => Ok(sync_folder(&self.buckets)?),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(StoreError::BucketExists),
            Err(error) => Err(self.refused(error)),
        }
    }

    /// Names and ages, in order.
    pub(super) fn list_buckets(&self) -> io::Result<Vec<(String, SystemTime)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.buckets)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let age = metadata.created().or_else(|_| metadata.modified())?;
            found.extend(entry.file_name().into_string().ok().map(|name| (name, age)));
        }
        found.sort();
        Ok(found)
    }

    pub(super) fn delete_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let folder = self.require_bucket(bucket)?;
        remove_empty_folders(&folder)?;
        match fs::remove_dir(&folder) {
            Ok(()) => Ok(sync_folder(&self.buckets)?),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Err(StoreError::BucketNotEmpty),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn get(&self, bucket: &str, key: &str) -> Result<Blob, StoreError> {
        keys::check(key).map_err(StoreError::InvalidKey)?;
        Blob::open(&keys::path(&self.bucket(bucket), key)).map_err(|error| self.missing(bucket, error))
    }

    pub(super) fn head(&self, bucket: &str, key: &str) -> Result<(Metadata, u64), StoreError> {
        keys::check(key).map_err(StoreError::InvalidKey)?;
        Blob::inspect(&keys::path(&self.bucket(bucket), key)).map_err(|error| self.missing(bucket, error))
    }

    /// A new file to write into.
    pub(super) fn writer(&self, checksums: ChecksumHasher) -> Result<Writer, StoreError> {
        let number = self.next_incoming.fetch_add(1, Ordering::Relaxed);
        let path = self.incoming.join(number.to_string());
        Writer::create(path, checksums).map_err(|error| self.refused(error))
    }

    /// Puts a sealed file in its place, in one step, if `conditions` hold for what is there now.
    pub(super) fn place(
        &self,
        incoming: Incoming,
        bucket: &str,
        key: &str,
        conditions: &Conditions,
    ) -> Result<(), StoreError> {
        keys::check(key).map_err(StoreError::InvalidKey)?;
        let folder = self.require_bucket(bucket)?;
        let path = keys::path(&folder, key);
        let _turn = self.turn(&path);
        if !conditions.is_empty() {
            let present = match Blob::inspect(&path) {
                Ok((metadata, _)) => Some(metadata),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error.into()),
            };
            conditions.check_write(present.as_ref())?;
        }
        self.rename_into(&incoming, &folder, &path)?;
        incoming.placed();
        Ok(())
    }

    /// Renames, making the folders on the way; a delete of a neighbour may sweep them away meanwhile.
    fn rename_into(&self, incoming: &Incoming, bucket: &Path, path: &Path) -> Result<(), StoreError> {
        let parent = path.parent().unwrap_or(bucket);
        for _ in 0..PLACE_ATTEMPTS {
            match fs::rename(incoming.path(), path) {
                Ok(()) => return Ok(sync_folder(parent)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => make_folders(bucket, parent)
                    .map_err(|error| match error.kind() {
                        io::ErrorKind::NotFound if !bucket.is_dir() => StoreError::NoSuchBucket,
                        _ => self.refused(error),
                    })?,
                Err(error) => return Err(self.refused(error)),
            }
        }
        Err(io::Error::other("the object's folder keeps vanishing").into())
    }

    /// Deletes objects; one that is not there is deleted already. Answers per key.
    pub(super) fn delete(
        &self,
        bucket: &str,
        keys: &[String],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let folder = self.require_bucket(bucket)?;
        let mut touched = BTreeSet::new();
        let answers = keys.iter().map(|key| self.delete_one(&folder, key, &mut touched)).collect();
        for parent in touched {
            remove_if_empty(&folder, &parent)?;
        }
        Ok(answers)
    }

    fn delete_one(
        &self,
        bucket: &Path,
        key: &str,
        touched: &mut BTreeSet<PathBuf>,
    ) -> Result<(), StoreError> {
        keys::check(key).map_err(StoreError::InvalidKey)?;
        let path = keys::path(bucket, key);
        let _turn = self.turn(&path);
        match fs::remove_file(&path) {
            Ok(()) => {
                touched.extend(path.parent().map(Path::to_path_buf));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn turn(&self, path: &Path) -> MutexGuard<'_, ()> {
        let stripe = self.hasher.hash_one(path) as usize % STRIPES;
        self.stripes[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn missing(&self, bucket: &str, error: io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::NotFound if self.bucket(bucket).is_dir() => StoreError::NoSuchKey,
            io::ErrorKind::NotFound => StoreError::NoSuchBucket,
            _ => error.into(),
        }
    }

    /// A full disk is said as such, with the folder.
    pub(super) fn refused(&self, error: io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::DiskFull(self.root.clone())
            }
            _ => error.into(),
        }
    }
}

/// A rename or a new name is on the disk only when its folder is.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes the folders from `bucket` (which must exist: a deleted bucket must not come back) down to `folder`.
fn make_folders(bucket: &Path, folder: &Path) -> io::Result<()> {
    let below = folder.strip_prefix(bucket).map_err(io::Error::other)?;
    let mut path = bucket.to_path_buf();
    for name in below {
        let parent = path.clone();
        path.push(name);
        match fs::create_dir(&path) {
            Ok(()) => sync_folder(&parent)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // Swept away between two steps: the caller tries again.
            Err(error) if error.kind() == io::ErrorKind::NotFound && bucket.is_dir() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes `folder` and the folders above it, up to the bucket, as far as they are empty.
fn remove_if_empty(bucket: &Path, folder: &Path) -> io::Result<()> {
    let mut survivor = folder;
    while survivor != bucket && fs::remove_dir(survivor).is_ok() {
        survivor = survivor.parent().unwrap_or(bucket);
    }
    match sync_folder(survivor) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()), // somebody else removed it
        other => other,
    }
}

/// Removes folders without objects below `folder`: a crash may leave some.
fn remove_empty_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            return Ok(()); // an object: the folder stays, and so does the bucket
        }
        remove_empty_folders(&entry.path())?;
        if fs::remove_dir(entry.path()).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
