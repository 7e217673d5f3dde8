//! The embedded log: one SQLite file, one writer thread, consumer groups within this process.
//!
//! It keeps every promise of [`Log`]: a transaction's records and offsets are one SQL commit, so after a crash at
//! any instruction both are there or neither is. Writers queue and share fsyncs (group commit); readers use
//! connections of their own and are woken by commits. A group's partitions move at once, by epoch, because owner and
//! commit meet in one thread.

mod assign;
mod catalog;
mod commands;
mod config;
mod database;
#[cfg(test)]
mod faults;
mod folder;
mod groups;
mod headers;
mod ledger;
mod member;
mod read;
mod reader;
mod retention;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};

pub use config::{Clock, LocalConfig, Synchronous, system_clock};
pub use retention::Maintained;

use crate::error::StreamError;
use crate::log::Cleanup;
use crate::log::{Log, LogHealth, ReadEnd, Reader, TopicDescription, TopicSize, TopicSpec, Watermarks};
use crate::member::{Member, Membership};
use crate::metrics::Metrics;
use crate::partitioner::partition_of_key;
use crate::record::{NewRecord, Position, TopicPartition};
use commands::{Command, Row, command_queue};
use folder::Folder;
use shared::Shared;
use writer::Writer;

/// The embedded log. Clones are handles of the same one.
///
/// It closes when the last handle, member and reader is dropped, or by [`LocalLog::close`].
#[derive(Clone)]
pub struct LocalLog {
    core: Arc<Core>,
}

/// What handles, members and readers share: as long as one of them lives, so does the writer.
pub(crate) struct Core {
    shared: Arc<Shared>,
    /// Guards the writer's handle; held to take it out.
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Where the next record without a key goes.
    keyless: AtomicUsize,
}

/// Says that the writer has ended, also when it panicked.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.set_closed();
    }
}

impl LocalLog {
    /// Opens the log in its folder, makes it if there is none. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`StreamError::Locked`] when another log has the folder, [`StreamError::NewerSchema`] when a newer program
    /// wrote it, [`StreamError::Corrupt`] when it is something else, storage errors.
    pub fn open(config: LocalConfig, metrics: Metrics) -> Result<Self, StreamError> {
        let folder = Folder::take(&config.folder)?;
        let (queue, receiver) = command_queue();
        let shared = Arc::new(Shared::new(&config, metrics, queue));
        let path = config.folder.clone();
        let writer = Writer::open(config, folder, Arc::clone(&shared), receiver)?;
        let ending = Ending(Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || {
                let _ending = ending;
                writer.run();
            })
            .map_err(|error| StreamError::Storage { folder: path, why: format!("no thread: {error}") })?;
        let core = Core { shared, writer: Mutex::new(Some(thread)), keyless: AtomicUsize::new(0) };
        Ok(Self { core: Arc::new(core) })
    }

    /// Closes the log: what was handed over before is carried out, the folder is free when this returns. Handles,
    /// members and readers that are left answer [`StreamError::Closed`]. Blocks for a commit and a checkpoint.
    pub fn close(&self) {
        self.core.close();
    }
}

impl Core {
    fn close(&self) {
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        if !self.shared.queue.close() {
            tracing::debug!("the log's writer had ended already");
        }
        if thread.join().is_err() {
            tracing::error!(folder = %self.shared.folder.display(), "the log's writer panicked");
        }
    }

    /// Asks the writer and waits for its answer.
    async fn ask<T>(
        &self,
        command: Command,
        bytes: usize,
        answer: oneshot::Receiver<T>,
    ) -> Result<T, StreamError> {
        if !self.shared.queue.send(command, bytes).await {
            return Err(self.shared.closed_error());
        }
        answer.await.map_err(|_| self.shared.closed_error())
    }

    /// Places and checks records.
    fn rows(&self, records: Vec<NewRecord>) -> Result<Vec<Row>, StreamError> {
        let catalog = self.shared.catalog();
        let mut rows = Vec::with_capacity(records.len());
        for record in records {
            let topic = catalog.topic(&record.topic)?;
            let size = record.size_bytes();
            if size > self.shared.record_bytes_max {
                let why = format!(
                    "a record for {} has {size} bytes, the limit is {}",
                    record.topic, self.shared.record_bytes_max
                );
                return Err(StreamError::Invalid { why });
            }
            if topic.policy.cleanup == Cleanup::Compact && record.key.is_none() {
                let why =
                    format!("a record for {} has no key, and the topic is compacted by key", record.topic);
                return Err(StreamError::Invalid { why });
            }
            let index = match (record.partition, &record.key) {
                (Some(partition), _) => partition,
                (None, Some(key)) => partition_of_key(key, topic.partition_count()),
                (None, None) => {
                    let turn = self.keyless.fetch_add(1, Ordering::Relaxed) % topic.partitions.len();
                    i32::try_from(turn).expect("below an i32 of partitions")
                }
            };
            let name = TopicPartition { topic: record.topic, partition: index };
            rows.push(Row {
                partition: Arc::clone(catalog.partition(&name)?),
                key: record.key,
                value: record.value,
                headers: headers::encode(&record.headers),
            });
        }
        Ok(rows)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Log for LocalLog {
    async fn join(&self, membership: Membership) -> Result<Box<dyn Member>, StreamError> {
        let catalog = self.core.shared.catalog();
        let topics = membership.topics.iter().map(|name| catalog.topic(name).map(Arc::clone));
        let topics = topics.collect::<Result<Vec<_>, _>>()?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Join { membership: membership.clone(), topics, reply };
        let joined = self.core.ask(command, 0, answer).await?;
        Ok(Box::new(member::LocalMember::new(Arc::clone(&self.core), &membership, joined)))
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, StreamError> {
        let rows = self.core.rows(records)?;
        let bytes = rows.iter().map(Row::size_bytes).sum();
        let (reply, answer) = oneshot::channel();
        self.core.ask(Command::Append { rows, reply }, bytes, answer).await?
    }

    async fn read(
        &self,
        from: Vec<(TopicPartition, i64)>,
        until: ReadEnd,
    ) -> Result<Box<dyn Reader>, StreamError> {
        let catalog = self.core.shared.catalog();
        let from = from.into_iter().map(|(name, offset)| Ok((Arc::clone(catalog.partition(&name)?), offset)));
        let from = from.collect::<Result<Vec<_>, StreamError>>()?;
        Ok(Box::new(reader::LocalReader::new(Arc::clone(&self.core), from, until)?))
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks, StreamError> {
        Ok(self.core.shared.catalog().partition(partition)?.ends())
    }

    async fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<i64, StreamError> {
        let partition = Arc::clone(self.core.shared.catalog().partition(partition)?);
        read::reading(&self.core.shared, move |connection| {
            read::offset_at(connection, &partition, timestamp_ms)
        })
        .await
    }

    async fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<i64>>, StreamError> {
        let catalog = self.core.shared.catalog();
        let partitions = partitions.iter().map(|name| catalog.partition(name).map(|partition| partition.id));
        let partitions = partitions.collect::<Result<Vec<_>, _>>()?;
        let (reply, answer) = oneshot::channel();
        self.core.ask(Command::Committed { group: group.into(), partitions, reply }, 0, answer).await
    }

    async fn topics(&self) -> Result<Vec<TopicSize>, StreamError> {
        if self.core.shared.is_closed() {
            return Err(self.core.shared.closed_error());
        }
        Ok(self.core.shared.catalog().topics().map(|topic| topic.size()).collect())
    }

    async fn describe(&self, topics: &[&str]) -> Result<Vec<TopicDescription>, StreamError> {
        if self.core.shared.is_closed() {
            return Err(self.core.shared.closed_error());
        }
        let catalog = self.core.shared.catalog();
        Ok(catalog
            .topics()
            .filter(|topic| topics.contains(&&*topic.name))
            .map(|topic| topic.describe())
            .collect())
    }

    async fn create_topics(&self, topics: &[TopicSpec]) -> Result<(), StreamError> {
        let (reply, answer) = oneshot::channel();
        self.core.ask(Command::CreateTopics { topics: topics.to_vec(), reply }, 0, answer).await?
    }

    fn health(&self) -> watch::Receiver<LogHealth> {
        self.core.shared.health.subscribe()
    }
}
