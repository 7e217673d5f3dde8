//! What the log carries: records, and the names of places in it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's index, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// The place of one record in this partition.
    pub fn at(&self, offset: i64) -> Position {
        Position { topic: Arc::clone(&self.topic), partition: self.partition, offset }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// The place of one record.
///
/// Offsets of a partition grow, but have gaps: transaction markers, aborted and compacted records occupy some.
/// Nobody may compute "the next record" as `offset + 1`; as a *position to go on from* `offset + 1` is right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's index, from 0.
    pub partition: i32,
    /// The record's offset in its partition, from 0.
    pub offset: i64,
}

impl Position {
    /// Names a place.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32, offset: i64) -> Self {
        Self { topic: topic.into(), partition, offset }
    }

    /// The partition it lies in.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: Arc::clone(&self.topic), partition: self.partition }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.topic, self.partition, self.offset)
    }
}

/// A header: a name and a value. Names may repeat; order is kept.
pub type Header = (String, Bytes);

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it lies.
    pub position: Position,
    /// When its producer wrote it, Unix time in milliseconds.
    pub timestamp_ms: i64,
    /// Its key, if it has one. An empty key is a key.
    pub key: Option<Bytes>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in the producer's order.
    pub headers: Vec<Header>,
}

impl Record {
    /// The last header of this name: the one that counts where a name repeats.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().rev().find(|(header, _)| header == name).map(|(_, value)| value)
    }
}

/// A record to write. Its timestamp is the moment of the write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// The topic to write to; it must exist.
    pub topic: Arc<str>,
    /// The partition, or `None`: [`crate::partition_of_key`] of the key as Java's default partitioner does it;
    /// a record without a key goes to some partition.
    pub partition: Option<i32>,
    /// The key. Topics with [`crate::Cleanup::Compact`] require one.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers, kept in this order.
    pub headers: Vec<Header>,
}

impl NewRecord {
    /// A record of this key and value, placed by its key.
    pub fn keyed(topic: impl Into<Arc<str>>, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            partition: None,
            key: Some(key.into()),
            value: Some(value.into()),
            headers: Vec::new(),
        }
    }

    /// The same record with one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same record, bound to this partition.
    #[must_use]
    pub fn in_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Bytes of key, value and headers: what limits of records and transactions count.
    pub fn size_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len) + headers
    }
}
