//! What retention has removed: outcomes that nobody can ask for any more.

use stream::{Cleanup, ReadEnd, TopicPartition};

use super::snapshot::{Snapshot, low_now};
use super::{Audit, AuditError};

/// Producers' and workers' clocks may differ by so much. Chosen: a third of what S3 accepts of its clients.
const CLOCKS_DIFFER_MS: i64 = 5 * 60 * 1_000;

/// Where retention has removed outcomes, an input that was written no later than this may have had one: an outcome is
/// written after its input. `None`: no outcome was removed.
pub(super) async fn removed_before_ms(audit: &Audit, snapshot: &Snapshot) -> Result<Option<i64>, AuditError> {
    let mut removed = None;
    for part in &snapshot.outcomes {
        let low = low_now(audit, &part.partition).await?;
        if low > 0 {
            let here = match oldest_ms(audit, &part.partition, low).await? {
                Some(oldest) => oldest,
                None => expired_ms(audit, &part.partition).await?,
            };
            removed = removed.max(Some(here.saturating_add(CLOCKS_DIFFER_MS)));
        }
    }
    Ok(removed)
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

/// Nothing is left, as in a topic of dead letters that had none for long: what is gone is older than the topic keeps.
async fn expired_ms(audit: &Audit, partition: &TopicPartition) -> Result<i64, AuditError> {
    let topics = audit.log.describe(&[&partition.topic]).await?;
    Ok(match topics.first().map(|topic| topic.policy.cleanup) {
        Some(Cleanup::Delete { retention_ms }) => (audit.clock)().saturating_sub(retention_ms),
        // A topic that forgets by key says nothing about time.
        Some(Cleanup::Compact) | None => i64::MAX,
    })
}
