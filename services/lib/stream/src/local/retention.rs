//! Retention and compaction. Plans are made with reading connections; the writer removes in chunks, between the
//! commits of others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ops::Shutdown;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::LocalLog;
use super::catalog::Partition;
use super::commands::Command;
use super::read::{offset_at, reading};
use crate::error::StreamError;
use crate::log::Cleanup;

/// Offsets or rows removed by one command (chosen: some milliseconds of the writer).
const CHUNK: usize = 4096;
/// Pages given back to the file system by one command: 8 MiB (chosen, as above).
const VACUUM_PAGES: i64 = 2048;
/// Tombstones of compacted topics stay for a day, as Kafka's `delete.retention.ms` has it: readers that are behind
/// must get to see that a key is gone.
const TOMBSTONE_MS: i64 = 24 * 60 * 60 * 1000;

/// What one round of maintenance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Records removed because of their age.
    pub expired_count: u64,
    /// Records removed because their key has a newer one.
    pub compacted_count: u64,
    /// Bytes given back to the file system.
    pub freed_bytes: u64,
}

impl LocalLog {
    /// Applies every topic's policy once, as of this Unix time.
    ///
    /// As in Kafka, age alone decides: a record older than its topic's retention goes, whether a group has read it or
    /// not, and the low watermark moves up. Unlike in Kafka, records go one by one, not by segments. Compaction keeps
    /// each key's last record; it needs memory for a topic's distinct keys.
    ///
    /// # Errors
    /// A failing storage, a closed log. A full one is no obstacle: this is what makes room.
    pub async fn maintain(&self, now_ms: i64) -> Result<Maintained, StreamError> {
        let mut done = Maintained::default();
        let catalog = self.core.shared.catalog();
        for topic in catalog.topics() {
            for partition in &topic.partitions {
                match topic.policy.cleanup {
                    Cleanup::Delete { retention_ms } => {
                        let oldest_kept_ms = now_ms.saturating_sub(retention_ms);
                        done.expired_count += self.expire(partition, oldest_kept_ms).await?;
                    }
                    Cleanup::Compact => done.compacted_count += self.compact(partition, now_ms).await?,
                }
            }
        }
        // A checkpoint shrinks the file only by what was given back, so this comes last.
        loop {
            let (reply, answer) = oneshot::channel();
            let command = Command::Vacuum { pages_max: VACUUM_PAGES, reply };
            let pages = self.core.ask(command, 0, answer).await??;
            done.freed_bytes += u64::try_from(pages).unwrap_or(0) * 4096;
            if pages < VACUUM_PAGES {
                return Ok(done);
            }
        }
    }

    /// Applies the policies again and again, by the log's own clock, until the shutdown: the body of a named task.
    ///
    /// # Errors
    /// When the log is closed before the shutdown was asked for.
    pub async fn maintain_every(&self, pause: Duration, shutdown: &Shutdown) -> Result<(), StreamError> {
        loop {
            match self.maintain((self.core.shared.clock)()).await {
                Ok(done) if done == Maintained::default() => {}
                Ok(done) => tracing::info!(
                    expired = done.expired_count,
                    compacted = done.compacted_count,
                    freed_bytes = done.freed_bytes,
                    "the log was tidied"
                ),
                Err(_) if shutdown.is_requested() => return Ok(()),
                Err(error @ StreamError::Closed { .. }) => return Err(error),
                Err(error) => tracing::warn!(%error, "the log could not be tidied"),
            }
            tokio::select! {
                () = shutdown.requested() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn expire(&self, partition: &Arc<Partition>, oldest_kept_ms: i64) -> Result<u64, StreamError> {
        let searched = Arc::clone(partition);
        let below =
            reading(&self.core.shared, move |connection| offset_at(connection, &searched, oldest_kept_ms));
        let below = below.await?;
        let mut removed = 0;
        while partition.low() < below {
            let (reply, answer) = oneshot::channel();
            let below = below.min(partition.low() + CHUNK as i64);
            let command = Command::Trim { partition: Arc::clone(partition), below, reply };
            removed += self.core.ask(command, 0, answer).await??;
        }
        Ok(removed)
    }

    async fn compact(&self, partition: &Arc<Partition>, now_ms: i64) -> Result<u64, StreamError> {
        let searched = Arc::clone(partition);
        let superseded =
            reading(&self.core.shared, move |connection| superseded(connection, &searched, now_ms));
        let mut removed = 0;
        for rows in superseded.await?.chunks(CHUNK) {
            let (reply, answer) = oneshot::channel();
            removed += self.core.ask(Command::Remove { rows: rows.to_vec(), reply }, 0, answer).await??;
        }
        Ok(removed)
    }
}

/// The rows of a partition whose key has a newer record, and the tombstones that are old enough.
///
/// What is appended meanwhile only supersedes more, so the list stays right until it is carried out.
fn superseded(connection: &Connection, partition: &Partition, now_ms: i64) -> rusqlite::Result<Vec<i64>> {
    let mut select = connection.prepare(
        "SELECT id, key, value IS NULL, timestamp_ms FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id",
    )?;
    let mut rows = select.query((partition.row(0), partition.row(partition.high())))?;
    let mut last: HashMap<Vec<u8>, (i64, bool)> = HashMap::new();
    let mut removable = Vec::new();
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let key = row.get_ref(1)?.as_blob_or_null()?.unwrap_or_default().to_vec();
        let old_tombstone =
            row.get::<_, bool>(2)? && row.get::<_, i64>(3)? < now_ms.saturating_sub(TOMBSTONE_MS);
        if let Some((before, _)) = last.insert(key, (id, old_tombstone)) {
            removable.push(before);
        }
    }
    removable.extend(last.into_values().filter(|(_, old_tombstone)| *old_tombstone).map(|(id, _)| id));
    removable.sort_unstable();
    Ok(removable)
}
