//! How the writer goes on after a full disk or a failed one.

use std::time::Instant;

use super::{Condition, PROBE_BYTES, Writer};
use crate::error::StreamError;
use crate::local::database::{Database, told};
use crate::local::ledger::Ledger;
use crate::log::LogHealth;

impl Writer {
    /// The file does not take writes. Nothing is given out any more until it does.
    pub(super) fn set_condition(&mut self, error: StreamError) {
        let reason = error.to_string();
        let health = LogHealth::NotReady { reason: reason.as_str().into() };
        if *self.shared.health.borrow() != health {
            tracing::error!(folder = %self.config.folder.display(), reason, "the log cannot write");
            self.shared.health.send_replace(health);
        }
        // Broken stays broken until the file was opened anew, whatever fails meanwhile.
        let broken = matches!(self.condition, Condition::Broken(_))
            || !matches!(error, StreamError::StorageFull { .. });
        self.condition = if broken { Condition::Broken(error) } else { Condition::Full(error) };
        self.probed_at = Instant::now();
        self.groups.set_ready(false, &self.ledger.committed);
        if broken {
            self.groups.rewind_all(&self.ledger.committed);
        }
    }

    pub(super) fn condition_error(&self) -> StreamError {
        match &self.condition {
            Condition::Full(error) | Condition::Broken(error) => error.clone(),
            Condition::Ready => self.shared.closed_error(),
        }
    }

    /// Tries whether the file takes writes again.
    pub(super) fn probe(&mut self) {
        self.probed_at = Instant::now();
        if let Err(error) = self.try_again() {
            return self.set_condition(error);
        }
        tracing::info!(folder = %self.config.folder.display(), "the log can write again");
        self.condition = Condition::Ready;
        self.shared.health.send_replace(LogHealth::Ready);
        self.groups.set_ready(true, &self.ledger.committed);
    }

    fn try_again(&mut self) -> Result<(), StreamError> {
        if matches!(self.condition, Condition::Broken(_)) {
            self.reopen()?;
        }
        let Some(database) = &self.database else { return Err(self.condition_error()) };
        let folder = &self.config.folder;
        // Gives the room of the write-ahead log back; when even that fails, the trial below says so.
        if let Err(error) = database.checkpoint_whole() {
            tracing::debug!(%error, "no checkpoint yet");
        }
        database.probe(PROBE_BYTES).map_err(|error| {
            database.rollback();
            told(folder, &error)
        })
    }

    /// Opens the file anew. After a failed fsync the kernel may hold pages as clean that never reached the disk; so
    /// everything in the write-ahead log is written and synced once more (a whole checkpoint) before it is trusted.
    fn reopen(&mut self) -> Result<(), StreamError> {
        self.database = None;
        self.shared.pool.renew();
        let database = Database::open(&self.config.folder, self.config.synchronous, self.config.bytes_max)?;
        let told = |error| told(&self.config.folder, &error);
        if !database.checkpoint_whole().map_err(told)? {
            let why = "a reader keeps the write-ahead log".to_owned();
            return Err(StreamError::Storage { folder: self.config.folder.clone(), why });
        }
        let loaded = database.load().map_err(told)?;
        let (ledger, catalog) = Ledger::of(loaded, &self.shared.catalog());
        self.ledger = ledger;
        self.shared.set_catalog(catalog);
        self.database = Some(database);
        // A commit whose answer was "unknown" may have happened: readers shall look.
        self.shared.appended.send_modify(|count| *count += 1);
        Ok(())
    }
}
