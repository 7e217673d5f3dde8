//! What is gone from the topics of outcomes, and which inputs that excuses.
//!
//! Only age excuses. A topic removes by age what is older than its retention, so what went by age was written before
//! (now − retention), and before the oldest record that is left; its input was written before it. The second bound
//! alone would not do: in a partition with few outcomes the oldest that is left may be of today, and would excuse
//! every loss of yesterday.
//!
//! Outcomes may go otherwise: by size (`retention.bytes`), by an operator's hand (`kafka-delete-records`), or under a
//! shorter retention than the topic has now. Then nothing tells what was among them, and an input whose outcome went
//! that way is reported as missing, with a word about this: an alarm that a person can explain is better than a loss
//! that nobody sees. A topic that keeps for ever, or forgets by key, excuses accordingly: nothing, or what is older
//! than its oldest record.

use stream::{Cleanup, ReadEnd, TopicPartition};

use super::snapshot::{Snapshot, low_now};
use super::{Audit, AuditError};

/// Clocks of producers, workers and brokers may differ by so much. Chosen: a third of what S3 accepts of its clients.
const CLOCKS_DIFFER_MS: i64 = 5 * 60 * 1_000;

/// Times of inputs, in Unix milliseconds; `None`: of no input.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Removed {
    /// The outcome of an input that is not younger may have gone by age.
    by_age_ms: Option<i64>,
    /// The outcome of an input that is not younger may have gone, but maybe not by age.
    anyhow_ms: Option<i64>,
}

impl Removed {
    /// Looks at each partition of outcomes that does not begin at its beginning any more.
    pub(super) async fn look(audit: &Audit, snapshot: &Snapshot) -> Result<Self, AuditError> {
        let mut removed = Self::default();
        for part in &snapshot.outcomes {
            let low = low_now(audit, &part.partition).await?;
            if low == 0 {
                continue;
            }
            // Nothing may be left, as in a topic of dead letters that had none for long.
            let left = oldest_ms(audit, &part.partition, low).await?.unwrap_or(i64::MAX);
            let topics = audit.log.describe(&[&part.partition.topic]).await?;
            let expired = match topics.first().map(|topic| topic.policy.cleanup) {
                // After the low watermark was asked for: what had gone by then is older.
                Some(Cleanup::Delete { retention_ms }) => (audit.clock)().saturating_sub(retention_ms),
                // A topic that forgets by key says nothing about time.
                Some(Cleanup::Compact) | None => i64::MAX,
            };
            let with_clocks = |ms: i64| Some(ms.saturating_add(CLOCKS_DIFFER_MS));
            removed.by_age_ms = removed.by_age_ms.max(with_clocks(expired.min(left)));
            removed.anyhow_ms = removed.anyhow_ms.max(with_clocks(left));
        }
        Ok(removed)
    }

    /// Whether the outcome of an input of this time may have gone by age.
    pub(super) fn excuses(&self, input_ms: i64) -> bool {
        self.by_age_ms.is_some_and(|removed| input_ms <= removed)
    }

    /// What else may have become of the missing outcome of an input of this time.
    pub(super) fn hint(&self, input_ms: i64) -> &'static str {
        if self.anyhow_ms.is_some_and(|removed| input_ms <= removed) {
            "; outcomes were removed, and this one was too young to go by age: it is lost, or it went by \
             retention.bytes, by an operator's hand, or under a shorter retention.ms"
        } else {
            ""
        }
    }
}

/// When the oldest record that is left was written.
async fn oldest_ms(audit: &Audit, partition: &TopicPartition, low: i64) -> Result<Option<i64>, AuditError> {
    let mut reader = audit.log.read(vec![(partition.clone(), low)], ReadEnd::Watermark).await?;
    while let Some(batch) = reader.next().await? {
        if let Some(record) = batch.records.first() {
            return Ok(Some(record.timestamp_ms));
        }
    }
    Ok(None)
}
