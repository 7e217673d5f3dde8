//! The topics and partitions that exist, shared by everyone who asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::error::StreamError;
use crate::log::{TopicPolicy, TopicSize, TopicSpec, Watermarks};
use crate::record::TopicPartition;
use crate::topics;

/// A record's row is `partition id << OFFSET_BITS | offset`: one integer key orders a partition's records and
/// keeps them together. 40 bits are 10^12 records in a partition: 350 years of a hundred a second.
pub(crate) const OFFSET_BITS: u32 = 40;

/// The topics at one moment. Replaced as a whole when topics are created.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    topics: BTreeMap<Arc<str>, Arc<Topic>>,
}

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) policy: TopicPolicy,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

/// One partition and its ends. Only the writer moves them, and only after the commit that did.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) id: i64,
    pub(crate) name: TopicPartition,
    low: AtomicI64,
    high: AtomicI64,
}

impl Partition {
    pub(crate) fn new(id: i64, name: TopicPartition, ends: Watermarks) -> Self {
        Self { id, name, low: AtomicI64::new(ends.low), high: AtomicI64::new(ends.high) }
    }

    /// The row of an offset.
    pub(crate) fn row(&self, offset: i64) -> i64 {
        (self.id << OFFSET_BITS) | offset
    }

    /// The offset of a row.
    pub(crate) fn offset(row: i64) -> i64 {
        row & ((1 << OFFSET_BITS) - 1)
    }

    pub(crate) fn low(&self) -> i64 {
        self.low.load(Ordering::Acquire)
    }

    pub(crate) fn high(&self) -> i64 {
        self.high.load(Ordering::Acquire)
    }

    pub(crate) fn ends(&self) -> Watermarks {
        Watermarks { low: self.low(), high: self.high() }
    }

    pub(crate) fn publish(&self, ends: Watermarks) {
        self.low.store(ends.low, Ordering::Release);
        self.high.store(ends.high, Ordering::Release);
    }
}

impl Catalog {
    pub(crate) fn new(topics: impl IntoIterator<Item = Arc<Topic>>) -> Self {
        Self { topics: topics.into_iter().map(|topic| (Arc::clone(&topic.name), topic)).collect() }
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    pub(crate) fn topic(&self, name: &str) -> Result<&Arc<Topic>, StreamError> {
        self.topics.get(name).ok_or_else(|| StreamError::UnknownTopic { topic: name.to_owned() })
    }

    pub(crate) fn partition(&self, name: &TopicPartition) -> Result<&Arc<Partition>, StreamError> {
        let topic = self.topic(&name.topic)?;
        usize::try_from(name.partition).ok().and_then(|index| topic.partitions.get(index)).ok_or_else(|| {
            StreamError::UnknownPartition { partition: name.clone(), partitions: topic.partition_count() }
        })
    }

    /// Those of `wanted` that do not exist yet; an error when one exists otherwise or is not a possible topic.
    pub(crate) fn missing<'a>(&self, wanted: &'a [TopicSpec]) -> Result<Vec<&'a TopicSpec>, StreamError> {
        topics::missing(wanted, |name| self.topics.get(name).map(|topic| topic.describe()))
    }
}

impl Topic {
    pub(crate) fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).expect("topics are created with an i32 of partitions")
    }

    pub(crate) fn size(&self) -> TopicSize {
        TopicSize { name: Arc::clone(&self.name), partitions: self.partition_count() }
    }

    pub(crate) fn describe(&self) -> TopicSpec {
        TopicSpec { name: Arc::clone(&self.name), partitions: self.partition_count(), policy: self.policy }
    }
}
