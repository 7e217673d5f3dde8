//! What travels through the corridor.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forensics::{FacesIn, InputPosition, Lane, MediaId, MediaReference, Tenant};
use media::Stopwatch;
use stream::{AssignmentEpoch, Record, TopicPartition};

/// A record of a media topic, and the assignment under which it was taken in.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// Its partition.
    pub(crate) partition: TopicPartition,
    /// The assignment.
    pub(crate) epoch: AssignmentEpoch,
    /// The record.
    pub(crate) record: Record,
    /// The lane of its topic.
    pub(crate) lane: Lane,
    /// 1 for the first try.
    pub(crate) attempt: u32,
    /// When this worker took it in, by the wall clock.
    pub(crate) taken_in_at: SystemTime,
}

impl Input {
    /// Where it stands in the log.
    pub(crate) fn position(&self) -> InputPosition {
        let at = &self.record.position;
        InputPosition { topic: at.topic.to_string(), partition: at.partition, offset: at.offset }
    }

    /// When its producer wrote it.
    pub(crate) fn written_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.record.timestamp_ms).unwrap_or(0))
    }

    /// Bytes of the record, for the budget.
    pub(crate) fn bytes(&self) -> usize {
        let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
        length(&self.record.key) + length(&self.record.value)
    }
}

/// A reference to be examined.
#[derive(Debug)]
pub(crate) struct Job {
    /// Its record.
    pub(crate) input: Input,
    /// What the record says.
    pub(crate) reference: MediaReference,
    /// The time that counts towards its deadline: while the store is waited for, and while its own pictures are
    /// worked on. Waiting for a place with us does not count, nor does an outage of the store.
    pub(crate) time: Stopwatch,
}

/// Whom and what a verdict is about; also known of references that broke the grammar.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) tenant: Tenant,
    pub(crate) media_id: MediaId,
    pub(crate) generation: u32,
    pub(crate) faces: FacesIn,
    pub(crate) due_at: Option<SystemTime>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl From<&MediaReference> for Subject {
    fn from(reference: &MediaReference) -> Self {
        Self {
            tenant: reference.tenant.clone(),
            media_id: reference.media_id.clone(),
            generation: reference.generation,
            faces: reference.faces,
            due_at: reference.due_at,
            labels: reference.labels.clone(),
        }
    }
}
