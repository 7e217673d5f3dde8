//! One process at a time in a folder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::StreamError;

/// The folder, held until this is dropped. The kernel lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is missing, and takes it.
    pub(crate) fn take(path: &Path) -> Result<Self, StreamError> {
        let failed = |what: &str, error: &std::io::Error| StreamError::Storage {
            folder: path.to_owned(),
            why: format!("{what}: {error}"),
        };
        fs::create_dir_all(path).map_err(|error| failed("cannot make it", &error))?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("lock"))
            .map_err(|error| failed("cannot open its lock file", &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is a courtesy of the message: when it cannot be read, the lock still holds.
                let read = lock.read_to_string(&mut holder).is_ok_and(|_| !holder.trim().is_empty());
                let holder = if read { holder.trim().to_owned() } else { "another process".to_owned() };
                return Err(StreamError::Locked { folder: path.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(failed("cannot lock it", &error)),
        }
        let named = lock
            .set_len(0)
            .and_then(|()| lock.seek(SeekFrom::Start(0)))
            .and_then(|_| write!(lock, "process {}", std::process::id()));
        if let Err(error) = named {
            // A full disk must not keep the log from opening: reading goes on, and retention may make space.
            tracing::debug!(folder = %path.display(), %error, "the lock file does not name its holder");
        }
        // A folder that was just made must survive loss of power as well as what is written in it.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(|error| failed("cannot sync its parent", &error))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_has_it_and_what_to_do() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("log");
        let first = Folder::take(&folder).unwrap();
        let refused = Folder::take(&folder).unwrap_err().to_string();
        assert!(refused.contains(&folder.display().to_string()), "{refused}");
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert!(refused.contains("choose another folder"), "{refused}");
        drop(first);
        Folder::take(&folder).unwrap();
    }
}
