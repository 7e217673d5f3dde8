//! What is gone from the topics of outcomes, and which inputs that excuses.
//!
//! Only age excuses, and only that of the topic where the outcome must have been: the verdict topic, or for a record
//! that nobody can parse the one of dead letters. A topic removes by age what is older than its retention, so what
//! went by age was written before (now − retention), and before the oldest record that is left; its input was written
//! before it. The second bound alone would not do: in a partition with few outcomes the oldest that is left may be of
//! today, and would excuse every loss of yesterday.
//!
//! Outcomes may go otherwise: by size (`retention.bytes`), by an operator's hand (`kafka-delete-records`), by key where
//! a topic is compacted, or under a shorter retention than the topic has now. Then nothing tells what was among them,
//! and an input whose outcome went that way is reported as missing, with a word about this: an alarm that a person can
//! explain is better than a loss that nobody sees.
//!
//! How old an input is, its producer says. It is not believed where its own topic would not keep a record of that age:
//! who dates a record back could excuse its loss. (Kafka keeps a record as long as the youngest of its segment. With
//! verdicts kept for a shorter time than references, such an alarm may be a false one, and says what it is about.)

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::json::JsonReader;
use stream::{Cleanup, ReadEnd, Record, TopicPartition};

use super::snapshot::{OutcomeKind, Snapshot, low_now};
use super::{Audit, AuditError};

/// Clocks of producers, workers and brokers may differ by so much. Chosen: a third of what S3 accepts of its clients.
const CLOCKS_DIFFER_MS: i64 = 5 * 60 * 1_000;

#[derive(Default)]
pub(super) struct Removed {
    verdicts: Gone,
    dead_letters: Gone,
    /// A media topic that forgets by age has nothing that is older.
    kept_since_ms: BTreeMap<Arc<str>, i64>,
    references: JsonReader,
}

/// What is gone from a topic. Times of inputs, in Unix milliseconds; `None`: of no input.
#[derive(Debug, Clone, Copy, Default)]
struct Gone {
    /// The outcome of an input that is not younger may have gone by age.
    by_age_ms: Option<i64>,
    /// The outcome of an input that is not younger may have gone, but maybe not by age.
    anyhow_ms: Option<i64>,
}

impl Removed {
    /// Looks at each partition of outcomes that does not begin at its beginning any more.
    pub(super) async fn look(audit: &Audit, snapshot: &Snapshot) -> Result<Self, AuditError> {
        let mut removed = Self::default();
        let mut begun = Vec::new();
        for part in &snapshot.outcomes {
            let low = low_now(audit, &part.partition).await?;
            if low > 0 {
                begun.push((part, low));
            }
        }
        if begun.is_empty() {
            return Ok(removed);
        }
        let topics = audit.log.describe(&audit.topics.all()).await?;
        // After the low watermarks were asked for: what had gone by then is older.
        let now_ms = (audit.clock)();
        let kept_since = |name: &str| match topics.iter().find(|topic| &*topic.name == name)?.policy.cleanup {
            Cleanup::Delete { retention_ms } => Some(now_ms.saturating_sub(retention_ms)),
            Cleanup::Compact => None,
        };
        for (part, low) in begun {
            // Nothing may be left, as in a topic of dead letters that had none for long.
            let left = oldest_ms(audit, &part.partition, low).await?.unwrap_or(i64::MAX);
            let gone = match part.kind {
                OutcomeKind::Verdict => &mut removed.verdicts,
                OutcomeKind::DeadLetter => &mut removed.dead_letters,
            };
            let expired = kept_since(&part.partition.topic).map(|since| since.min(left));
            let with_clocks = |ms: i64| ms.saturating_add(CLOCKS_DIFFER_MS);
            gone.by_age_ms = gone.by_age_ms.max(expired.map(with_clocks));
            gone.anyhow_ms = gone.anyhow_ms.max(Some(with_clocks(left)));
        }
        let media = audit.topics.all_media().into_iter();
        removed.kept_since_ms = media.filter_map(|name| Some((name.into(), kept_since(name)?))).collect();
        Ok(removed)
    }

    /// Whether the outcome of this input may have gone by age.
    pub(super) fn excuses(&self, input: &Record) -> bool {
        self.is_believed(input) && self.gone(input).has_gone_by_age(input)
    }

    /// What else may have become of its missing outcome.
    pub(super) fn hint(&self, input: &Record) -> &'static str {
        let gone = self.gone(input);
        if gone.has_gone_by_age(input) {
            "; outcomes of that age are gone, but its timestamp is not believed: its own topic keeps nothing so old"
        } else if gone.anyhow_ms.is_some_and(|removed| input.timestamp_ms <= removed) {
            "; outcomes were removed, and this one was too young to go by age: it is lost, or it went by \
             retention.bytes, by an operator's hand, or under a shorter retention.ms"
        } else {
            ""
        }
    }

    /// The topic where the outcome must have been.
    fn gone(&self, input: &Record) -> Gone {
        match self.references.record(input.value.as_deref(), &input.headers) {
            Ok(_) => self.verdicts,
            Err(_) => self.dead_letters,
        }
    }

    fn is_believed(&self, input: &Record) -> bool {
        let since = self.kept_since_ms.get(&input.position.topic);
        since.is_none_or(|since| input.timestamp_ms >= since.saturating_sub(CLOCKS_DIFFER_MS))
    }
}

impl Gone {
    fn has_gone_by_age(self, input: &Record) -> bool {
        self.by_age_ms.is_some_and(|removed| input.timestamp_ms <= removed)
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
