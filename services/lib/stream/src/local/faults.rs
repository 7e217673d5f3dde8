//! Faults that tests put into the next commit: what a failing disk does there.

use std::sync::{Mutex, PoisonError};

use rusqlite::ffi;

use super::database::Database;

/// What happens to one commit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It fails, and did not happen.
    FsyncFailedBefore,
    /// It fails, and did happen.
    FsyncFailedAfter,
}

impl Fault {
    pub(crate) fn strike(self, database: &Database) -> rusqlite::Result<()> {
        match self {
            Self::FsyncFailedBefore => database.rollback(),
            Self::FsyncFailedAfter => database.commit()?,
        }
        Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), None))
    }
}

/// The fault that waits for the next commit.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    next: Mutex<Option<Fault>>,
}

impl Faults {
    pub(crate) fn set(&self, fault: Fault) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }

    pub(crate) fn take(&self) -> Option<Fault> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
