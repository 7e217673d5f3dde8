//! The store on SQLite: one writing connection and a few reading ones, each on a thread of its own.

mod cursor;
mod read;
mod schema;
mod write;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use forensics::{Tenant, VerdictId};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::{Applied, Filter, Page, PageBounds, PageKey, Seat, StoreError, Stretch};

/// Where the file lies, and how many threads read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteConfig {
    /// The file, made if missing; `-wal` and `-shm` appear beside it.
    pub file: PathBuf,
    /// Reading connections.
    pub readers: usize,
    /// Reads that may wait for one.
    pub waiting_max: usize,
}

/// Handles share the threads, which end when the last handle is dropped.
#[derive(Clone)]
pub(super) struct Sqlite {
    place: Arc<str>,
    writer: mpsc::Sender<Job>,
    readers: mpsc::Sender<Job>,
    waiting_max: usize,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

impl Sqlite {
    pub(super) fn open(config: &SqliteConfig, topic: &str, tasks: &ops::Tasks) -> Result<Self, StoreError> {
        let place: Arc<str> = config.file.display().to_string().into();
        let known = |error: schema::OpenError| error.at(&place);
        let connection = schema::open_writer(&config.file, topic).map_err(known)?;
        // The projector is the one writer and waits for each answer.
        let (writer, jobs) = mpsc::channel(1);
        start(tasks, "store-writer", connection, Arc::new(Mutex::new(jobs)));
        let (readers, jobs) = mpsc::channel(config.waiting_max);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..config.readers {
            let connection = schema::open_reader(&config.file).map_err(known)?;
            start(tasks, "store-reader", connection, Arc::clone(&jobs));
        }
        Ok(Self { place, writer, readers, waiting_max: config.waiting_max })
    }

    pub(super) async fn offsets(&self) -> Result<Vec<(i32, i64)>, StoreError> {
        self.read(read::offsets).await
    }

    pub(super) async fn apply(&self, stretches: Vec<Stretch>) -> Result<Applied, StoreError> {
        let (job, answer) = self.job(move |connection| write::apply(connection, &stretches));
        if self.writer.send(job).await.is_err() {
            return Err(self.ended());
        }
        answer.await.unwrap_or_else(|_| Err(self.ended()))
    }

    pub(super) async fn get(&self, tenant: &Tenant, id: VerdictId) -> Result<Option<Bytes>, StoreError> {
        let tenant = tenant.to_string();
        self.read(move |connection| read::get(connection, &tenant, id)).await
    }

    pub(super) async fn newest(
        &self,
        tenant: &Tenant,
        media_ids: Vec<String>,
    ) -> Result<Vec<Bytes>, StoreError> {
        let tenant = tenant.to_string();
        self.read(move |connection| read::newest(connection, &tenant, &media_ids)).await
    }

    pub(super) async fn list(
        &self,
        tenant: &Tenant,
        filter: Filter,
        after: Option<PageKey>,
        bounds: PageBounds,
    ) -> Result<Page, StoreError> {
        let tenant = tenant.to_string();
        self.read(move |connection| read::list(connection, &cursor::Wanted { tenant, filter, after }, bounds))
            .await
    }

    pub(super) async fn known(&self, ids: Vec<VerdictId>) -> Result<Vec<VerdictId>, StoreError> {
        self.read(move |connection| read::known(connection, ids)).await
    }

    pub(super) async fn seated(
        &self,
        from: Seat,
        below: Seat,
        rows_max: usize,
    ) -> Result<Vec<(Seat, VerdictId)>, StoreError> {
        self.read(move |connection| read::seated(connection, from, below, rows_max)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, answer) = self.job(move |connection| work(connection));
        match self.readers.try_send(job) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(self.ended())),
            Err(mpsc::error::TrySendError::Full(_)) => Err(StoreError::Busy { waiting: self.waiting_max }),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(self.ended()),
        }
    }

    fn job<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
    ) -> (Job, oneshot::Receiver<Result<T, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        let place = Arc::clone(&self.place);
        let job: Job = Box::new(move |connection| {
            // Whoever gave up waiting frees its turn.
            if reply.is_closed() {
                return;
            }
            let result = work(connection).map_err(|failure| failure.at(&place));
            let _gone = reply.send(result).is_err();
        });
        (job, answer)
    }

    fn ended(&self) -> StoreError {
        StoreError::Unavailable { place: self.place.to_string(), why: "its thread has ended".to_owned() }
    }
}

fn start(tasks: &ops::Tasks, name: &str, mut connection: Connection, jobs: Arc<Mutex<mpsc::Receiver<Job>>>) {
    tasks.spawn_finite_thread(name, move || {
        loop {
            // The lock is held while waiting: the threads take turns at waiting, and work outside of it.
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
            let Some(job) = job else { return };
            job(&mut connection);
        }
    });
}

/// A failed statement, before it is known whose file it was.
#[derive(Debug)]
enum Failure {
    Overtaken { partition: i32 },
    Refused { why: String },
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Failure {
    fn at(self, place: &str) -> StoreError {
        let place = place.to_owned();
        match self {
            Self::Overtaken { partition } => StoreError::Overtaken { partition },
            Self::Refused { why } => StoreError::Refused { place, why },
            Self::Sqlite(error) => {
                let why = error.to_string();
                match error.sqlite_error_code() {
                    Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                        let why = format!("{why}; remove it, and it is built anew from the verdict topic");
                        StoreError::Refused { place, why }
                    }
                    _ => StoreError::Unavailable { place, why },
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
