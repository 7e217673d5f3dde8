//! The ends that an audit judges by, read in the order that makes it free of false alarms.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use stream::{Disposition, StreamError, TopicPartition};

use super::{Audit, AuditError, LOOK_EVERY};
use crate::projector::partitions;

pub(super) struct Snapshot {
    pub(super) inputs: Vec<InputPart>,
    pub(super) outcomes: Vec<OutcomePart>,
}

/// A partition of a media topic.
pub(super) struct InputPart {
    pub(super) partition: TopicPartition,
    pub(super) low: i64,
    /// What the group had committed when the audit began; `None`: nothing.
    pub(super) committed: Option<i64>,
    /// The same once the outcomes' ends were known.
    pub(super) committed_later: Option<i64>,
    /// Where the log ended then.
    high: i64,
}

impl InputPart {
    /// Every input below it must have an outcome.
    pub(super) fn due(&self) -> i64 {
        self.committed.unwrap_or(self.low)
    }

    /// No outcome may be of an input at or above it. Anybody may set a group's offset to anything: what lies beyond the
    /// log's end is no input, and memory for it would be memory for nothing.
    pub(super) fn end(&self) -> i64 {
        self.committed_later.unwrap_or(self.low).min(self.high).max(self.low)
    }
}

/// A partition of a topic of outcomes.
pub(super) struct OutcomePart {
    pub(super) partition: TopicPartition,
    pub(super) kind: OutcomeKind,
    pub(super) low: i64,
    pub(super) high: i64,
    /// How far it has been read: the end, or beyond it where something had to be looked for.
    pub(super) read_to: i64,
    /// How far the store had followed it; 0 where it does not.
    pub(super) projected: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutcomeKind {
    Verdict,
    DeadLetter,
}

impl Snapshot {
    pub(super) async fn take(audit: &Audit) -> Result<Self, AuditError> {
        let log = &*audit.log;
        let projected: BTreeMap<i32, i64> = match &audit.store {
            Some(store) => store.offsets().await?.into_iter().collect(),
            None => BTreeMap::new(),
        };
        let mut media = Vec::new();
        for topic in audit.topics.all_media() {
            media.extend(partitions(log, topic).await?);
        }
        let mut lows = Vec::with_capacity(media.len());
        for partition in &media {
            lows.push(log.watermarks(partition).await?.low);
        }
        let committed = committed_offsets(audit, &media).await?;
        let mut outcomes = Vec::new();
        for (topic, kind) in [
            (&audit.topics.verdicts, OutcomeKind::Verdict),
            (&audit.topics.dead_letters, OutcomeKind::DeadLetter),
        ] {
            for partition in partitions(log, topic).await? {
                let ends = log.watermarks(&partition).await?;
                let followed = projected.get(&partition.partition).copied().unwrap_or(0);
                let projected = if kind == OutcomeKind::Verdict { followed } else { 0 };
                let (low, high) = (ends.low, ends.high);
                outcomes.push(OutcomePart { partition, kind, low, high, read_to: high, projected });
            }
        }
        let committed_later = committed_offsets(audit, &media).await?;
        let mut inputs = Vec::with_capacity(media.len());
        for ((partition, low), (committed, committed_later)) in
            media.into_iter().zip(lows).zip(committed.into_iter().zip(committed_later))
        {
            let high = log.watermarks(&partition).await?.high;
            inputs.push(InputPart { partition, low, committed, committed_later, high });
        }
        Ok(Self { inputs, outcomes })
    }

    /// Offsets to read, for the progress.
    pub(super) fn records(&self) -> u64 {
        let outcomes = self.outcomes.iter().map(|part| part.high - part.low);
        let inputs = self.inputs.iter().map(|part| part.end() - part.low);
        outcomes.chain(inputs).map(|offsets| u64::try_from(offsets).unwrap_or(0)).sum()
    }

    /// The partitions of the verdict topic.
    pub(super) fn verdict_partitions(&self) -> i32 {
        let count = self.outcomes.iter().filter(|part| part.kind == OutcomeKind::Verdict).count();
        i32::try_from(count).unwrap_or(i32::MAX)
    }
}

/// What the workers' group has committed. While a transaction that moves its offsets is in doubt the log may not tell:
/// then it is asked again.
async fn committed_offsets(audit: &Audit, media: &[TopicPartition]) -> Result<Vec<Option<i64>>, StreamError> {
    let until = Instant::now() + audit.patience;
    loop {
        match audit.log.committed(&audit.worker_group, media).await {
            Err(error) if error.disposition() == Disposition::Retry && Instant::now() < until => {
                tracing::info!("audit: committed offsets are not told yet: {error}");
                tokio::time::sleep(LOOK_EVERY).await;
            }
            answer => return answer,
        }
    }
}

/// Where retention has brought the beginning by now.
pub(super) async fn low_now(audit: &Audit, partition: &TopicPartition) -> Result<i64, StreamError> {
    Ok(audit.log.watermarks(partition).await?.low)
}

/// The same partition by the names of an origin.
pub(super) fn named(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: Arc::from(topic), partition }
}
