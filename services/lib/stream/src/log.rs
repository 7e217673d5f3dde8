//! The seam: everything the services ask of a log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::StreamError;
use crate::member::{Member, Membership};
use crate::record::{NewRecord, Position, Record, TopicPartition};

/// A durable, partitioned log with consumer groups and transactions.
///
/// Readers of any kind see whole transactions only (`read_committed`). Requests have deadlines of the
/// implementation's own; none waits for ever, except for records that nobody has written yet.
#[async_trait]
pub trait Log: Send + Sync {
    /// Joins a consumer group. Partitions arrive later, as [`crate::MemberEvent::Assigned`].
    ///
    /// A living member with the same slot, in whatever group or process, is fenced by this.
    ///
    /// # Errors
    /// [`StreamError::UnknownTopic`] when a topic is missing; whatever keeps the log from answering.
    async fn join(&self, membership: Membership) -> Result<Box<dyn Member>, StreamError>;

    /// Writes records outside any transaction. `Ok` means durable; positions are in the records' order.
    ///
    /// Records of one call to one partition keep their order. After an error some of them may have been
    /// written, unless the error says that nothing was.
    ///
    /// # Errors
    /// Unknown topics and partitions, records over the size limit, a full or failing storage.
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, StreamError>;

    /// Reads without a group, from these offsets on: each record at or above its partition's offset, in order.
    ///
    /// An offset below the low watermark starts at the low watermark: what retention removed is not an error.
    ///
    /// # Errors
    /// [`StreamError::OffsetOutOfRange`] when an offset lies beyond the end: the caller's memory is not of this log.
    async fn read(
        &self,
        from: Vec<(TopicPartition, i64)>,
        until: ReadEnd,
    ) -> Result<Box<dyn Reader>, StreamError>;

    /// The ends of a partition.
    ///
    /// # Errors
    /// Unknown topics and partitions.
    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks, StreamError>;

    /// The first offset whose record was written at or after this Unix time; the high watermark when there is none.
    ///
    /// # Errors
    /// Unknown topics and partitions.
    async fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<i64, StreamError>;

    /// What a group has committed, in the order asked: the next offset to process, or `None` where it never did.
    ///
    /// # Errors
    /// Unknown topics and partitions.
    async fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<i64>>, StreamError>;

    /// All topics that this login may see, by name.
    ///
    /// # Errors
    /// Whatever keeps the log from answering.
    async fn topics(&self) -> Result<Vec<TopicSize>, StreamError>;

    /// Those of these topics that exist, with their policies. To be asked for topics of one's own: a log with rights
    /// of access has one for this.
    ///
    /// # Errors
    /// Whatever keeps the log from answering; [`StreamError::Refused`] where the right is lacking.
    async fn describe(&self, topics: &[&str]) -> Result<Vec<TopicDescription>, StreamError>;

    /// Creates topics. One that exists as wanted is left alone.
    ///
    /// # Errors
    /// [`StreamError::TopicMismatch`] when one exists otherwise; then none of these is created.
    async fn create_topics(&self, topics: &[TopicSpec]) -> Result<(), StreamError>;

    /// Whether the log can work, now and whenever it changes.
    fn health(&self) -> watch::Receiver<LogHealth>;

    /// What it promises of the records that its members commit.
    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }
}

/// What is promised of outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Outcomes and offsets become visible together.
    ExactlyOnce,
    /// Offsets follow their outcomes: after a crash some outcomes are there twice.
    AtLeastOnce,
}

/// Which of these topics do not exist.
///
/// # Errors
/// Whatever keeps the log from answering; [`StreamError::Refused`] where a topic may be there, hidden from this login.
pub async fn missing_topics<'a>(
    log: &dyn Log,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<&'a str>, StreamError> {
    let there = log.topics().await?;
    let is_there = |name: &str| there.iter().any(|topic| &*topic.name == name);
    let mut missing = Vec::new();
    for name in names.into_iter().filter(|name| !is_there(name)) {
        // A list names what one may see; asked for a name, the log says whether it is hidden or not there.
        match log.watermarks(&TopicPartition::new(name, 0)).await {
            Err(StreamError::UnknownTopic { .. }) => missing.push(name),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Ok(missing)
}

/// Reads partitions without a group.
#[async_trait]
pub trait Reader: Send {
    /// The next records, of one partition; `None` at the end of a [`ReadEnd::Watermark`] read. Cancel safe.
    ///
    /// # Errors
    /// A failing storage, a closed log.
    async fn next(&mut self) -> Result<Option<ReadBatch>, StreamError>;
}

/// Records of one partition, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBatch {
    /// The partition.
    pub partition: TopicPartition,
    /// At least one record, except in a batch that only moves the position over a gap.
    pub records: Vec<Record>,
    /// Where to go on: store this, not "last offset + 1", or a gap at the end counts as lag for ever.
    pub next_offset: i64,
}

/// Where a read ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// Never: it waits for what will be written.
    Tail,
    /// At the high watermarks of the moment the read began.
    Watermark,
}

/// The ends of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that retention has left.
    pub low: i64,
    /// The last stable offset: everything below it is decided and visible, or a gap. With Kafka not the end of
    /// the log: an open transaction holds it back.
    pub high: i64,
}

/// Whether the log can work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogHealth {
    /// It can.
    Ready,
    /// It cannot; it tries on by itself.
    NotReady {
        /// Why, with the folder or host, for the readiness page.
        reason: Arc<str>,
    },
}

impl LogHealth {
    /// Whether it is [`LogHealth::Ready`].
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }
}

/// A topic that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSize {
    /// Its name.
    pub name: Arc<str>,
    /// How many partitions.
    pub partitions: i32,
}

/// A topic to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: Arc<str>,
    /// How many partitions, at least 1.
    pub partitions: i32,
    /// What becomes of old records.
    pub policy: TopicPolicy,
}

/// A topic as it is.
pub type TopicDescription = TopicSpec;

/// What becomes of old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicPolicy {
    /// How they are removed.
    pub cleanup: Cleanup,
}

/// How old records are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// By age alone, whether somebody has read them or not, as Kafka does.
    Delete {
        /// Kept at least this long, in milliseconds.
        retention_ms: i64,
    },
    /// All but the last record of each key; tombstones go after a day.
    Compact,
}

impl TopicPolicy {
    /// Records go after this long.
    pub fn delete_after(retention: Duration) -> Self {
        let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        Self { cleanup: Cleanup::Delete { retention_ms } }
    }

    /// Only the last record of each key stays.
    pub fn compact() -> Self {
        Self { cleanup: Cleanup::Compact }
    }
}

impl fmt::Display for TopicPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cleanup {
            Cleanup::Delete { retention_ms } => write!(f, "cleanup delete, retention {retention_ms} ms"),
            Cleanup::Compact => write!(f, "cleanup compact"),
        }
    }
}
