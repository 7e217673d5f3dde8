//! Reading: connections of their own, beside the writer, seeing committed transactions only.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rusqlite::{Connection, Row};

use super::catalog::Partition;
use super::database::{open_to_read, told};
use super::headers;
use super::shared::Shared;
use crate::error::StreamError;
use crate::member::FetchBounds;
use crate::record::Record;

/// Idle connections that are kept (chosen: more fetches at once than this open their own for the moment).
const IDLE_MAX: usize = 8;

/// Connections to read with.
pub(crate) struct ReadPool {
    folder: PathBuf,
    /// Grows when the file is opened anew: older connections are not used again.
    generation: AtomicU64,
    /// Guards the list; held to take or give back one.
    idle: Mutex<Vec<(u64, Connection)>>,
}

impl ReadPool {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, generation: AtomicU64::new(0), idle: Mutex::new(Vec::new()) }
    }

    /// Lets go of every connection: none may keep the write-ahead log of a file that failed.
    pub(crate) fn renew(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.idle().clear();
    }

    pub(crate) fn close(&self) {
        self.renew();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(u64, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<R>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<R>) -> rusqlite::Result<R> {
        let generation = self.generation.load(Ordering::Acquire);
        let kept = self.idle().pop().filter(|(made, _)| *made == generation);
        let connection = match kept {
            Some((_, connection)) => connection,
            None => open_to_read(&self.folder)?,
        };
        let done = work(&connection);
        let mut idle = self.idle();
        if done.is_ok() && idle.len() < IDLE_MAX && self.generation.load(Ordering::Acquire) == generation {
            idle.push((generation, connection));
        }
        done
    }
}

/// Does something with a reading connection, off the async threads.
pub(crate) async fn reading<R: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
) -> Result<R, StreamError> {
    if shared.is_closed() {
        return Err(shared.closed_error());
    }
    let other = Arc::clone(shared);
    match tokio::task::spawn_blocking(move || other.pool.with(work)).await {
        Ok(done) => done.map_err(|error| told(&shared.folder, &error)),
        // The runtime is being shut down, or SQLite's binding panicked.
        Err(error) => Err(StreamError::Unavailable { why: format!("a read was given up: {error}") }),
    }
}

/// Records of a partition in `from..until`, as many as the bounds allow, at least one if there is one.
pub(crate) async fn fetch(
    shared: &Arc<Shared>,
    partition: &Arc<Partition>,
    range: std::ops::Range<i64>,
    bounds: FetchBounds,
) -> Result<Vec<Record>, StreamError> {
    let partition = Arc::clone(partition);
    let fetched = reading(shared, move |connection| {
        let mut select = connection.prepare(
            "SELECT id, timestamp_ms, key, value, headers FROM records WHERE id >= ?1 AND id < ?2
             ORDER BY id LIMIT ?3",
        )?;
        let limit = i64::try_from(bounds.records_max.max(1)).unwrap_or(i64::MAX);
        let mut rows = select.query((partition.row(range.start), partition.row(range.end), limit))?;
        let mut records = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            let (record, size) = record(&partition, row)?;
            bytes += size;
            if bytes > bounds.bytes_max && !records.is_empty() {
                break;
            }
            records.push(record);
        }
        Ok(records)
    });
    fetched.await
}

fn record(partition: &Partition, row: &Row<'_>) -> rusqlite::Result<(Record, usize)> {
    let blob = |index| -> rusqlite::Result<Option<Bytes>> {
        Ok(row.get_ref(index)?.as_blob_or_null()?.map(Bytes::copy_from_slice))
    };
    let (key, value) = (blob(2)?, blob(3)?);
    let coded = row.get_ref(4)?.as_blob_or_null()?.unwrap_or_default();
    let damaged = || {
        let why = "headers are damaged".into();
        rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Blob, why)
    };
    let headers = headers::decode(coded).ok_or_else(damaged)?;
    let size = key.as_ref().map_or(0, Bytes::len) + value.as_ref().map_or(0, Bytes::len) + coded.len();
    let position = partition.name.at(Partition::offset(row.get(0)?));
    Ok((Record { position, timestamp_ms: row.get(1)?, key, value, headers }, size))
}

/// The first offset of `low..high` whose record is of this time or later, `high` if none is. A partition's times do
/// not decrease, so it is found by halving, without an index that every append would pay for.
pub(crate) fn offset_at(
    connection: &Connection,
    partition: &Partition,
    timestamp_ms: i64,
) -> rusqlite::Result<i64> {
    let mut select = connection
        .prepare("SELECT id, timestamp_ms FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1")?;
    let ends = partition.ends();
    // Everything below `from` is older; everything from `until` on is not.
    let (mut from, mut until) = (ends.low, ends.high);
    while from < until {
        let middle = from + (until - from) / 2;
        let mut rows = select.query((partition.row(middle), partition.row(until)))?;
        match rows.next()? {
            // A gap up to `until`.
            None => until = middle,
            Some(row) if row.get::<_, i64>(1)? < timestamp_ms => from = Partition::offset(row.get(0)?) + 1,
            Some(_) => until = middle,
        }
    }
    Ok(from)
}
