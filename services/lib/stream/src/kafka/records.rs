//! Records of ours into those of librdkafka, and back.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::error::StreamError;
use crate::record::{NewRecord, Position, Record, TopicPartition};

/// A record with its place decided.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) record: NewRecord,
    pub(crate) partition: i32,
}

impl Row {
    /// As librdkafka takes it, to be recognised by `mark`.
    pub(crate) fn to_send<M: rdkafka::util::IntoOpaque>(&self, mark: M) -> BaseRecord<'_, [u8], [u8], M> {
        let mut record = BaseRecord::with_opaque_to(&self.record.topic, mark).partition(self.partition);
        record.key = self.record.key.as_deref();
        record.payload = self.record.value.as_deref();
        if !self.record.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(self.record.headers.len());
            for (name, value) in &self.record.headers {
                headers = headers.insert(Header { key: name, value: Some(&value[..]) });
            }
            record.headers = Some(headers);
        }
        record
    }

    pub(crate) fn topic(&self) -> &Arc<str> {
        &self.record.topic
    }

    pub(crate) fn at(&self, offset: i64) -> Position {
        Position { topic: Arc::clone(&self.record.topic), partition: self.partition, offset }
    }
}

/// Names are C strings to librdkafka: a NUL would end them early.
pub(crate) fn check_headers(record: &NewRecord) -> Result<(), StreamError> {
    match record.headers.iter().find(|(name, _)| name.contains('\0')) {
        None => Ok(()),
        Some((name, _)) => {
            let why = format!("a header of a record for {} has a NUL in its name: {name:?}", record.topic);
            Err(StreamError::Invalid { why })
        }
    }
}

/// A message as a record of ours. `topic` is the message's, so that its name is not made anew for each.
pub(crate) fn record(topic: &Arc<str>, message: &BorrowedMessage<'_>) -> Record {
    let mut headers = Vec::new();
    if let Some(borrowed) = message.headers() {
        for index in 0..borrowed.count() {
            let Some(header) = borrowed.try_get(index) else { break };
            headers.push((header.key.to_owned(), Bytes::copy_from_slice(header.value.unwrap_or_default())));
        }
    }
    Record {
        position: Position {
            topic: Arc::clone(topic),
            partition: message.partition(),
            offset: message.offset(),
        },
        timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers,
    }
}

/// What bounds of fetches count.
pub(crate) fn size_bytes(record: &Record) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len) + headers
}

/// Partitions as librdkafka lists them.
pub(crate) fn list<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}

/// Partitions with offsets as librdkafka lists them. An offset below zero cannot be told and is left out.
pub(crate) fn offset_list<'a>(
    offsets: impl IntoIterator<Item = (&'a TopicPartition, i64)>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        let mut entry = list.add_partition(&partition.topic, partition.partition);
        drop(entry.set_offset(Offset::Offset(offset)));
    }
    list
}

/// The partitions of a list of librdkafka.
pub(crate) fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|entry| TopicPartition::new(entry.topic(), entry.partition())).collect()
}
