//! Looking again: outcomes that were on their way when the ends were read.

use std::time::Instant;

use stream::Position;

use super::ledger::Ledger;
use super::outcomes::{Outcomes, reader};
use super::sink::Sink;
use super::snapshot::OutcomePart;
use super::{Audit, AuditError, LOOK_EVERY};

/// Follows the topics of outcomes beyond their ends, while something is missing and patience lasts.
pub(super) struct Late<'a> {
    audit: &'a Audit,
    parts: &'a mut [OutcomePart],
    /// When patience ends; it begins with the first outcome that is missing.
    until: Option<Instant>,
    over: bool,
}

impl<'a> Late<'a> {
    pub(super) fn new(audit: &'a Audit, parts: &'a mut [OutcomePart]) -> Self {
        Self { audit, parts, until: None, over: false }
    }

    /// Whether an outcome of this input turns up.
    pub(super) async fn turns_up(
        &mut self,
        input: &Position,
        ledger: &mut Ledger,
        outcomes: &mut Outcomes,
        sink: &mut Sink,
    ) -> Result<bool, AuditError> {
        let partition = input.topic_partition();
        // Once patience is over, every transaction of before is decided, and its outcomes are read.
        while !self.over {
            self.over =
                Instant::now() >= *self.until.get_or_insert_with(|| Instant::now() + self.audit.patience);
            for part in &mut *self.parts {
                read_on(self.audit, part, ledger, outcomes, sink).await?;
            }
            if ledger.has(&partition, input.offset) {
                return Ok(true);
            }
            if !self.over {
                // Says that it lives, and hears whether anybody listens.
                sink.progress("outcomes of transactions that are not decided yet", 0).await?;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(false)
    }
}

/// Reads what has become visible since.
async fn read_on(
    audit: &Audit,
    part: &mut OutcomePart,
    ledger: &mut Ledger,
    outcomes: &mut Outcomes,
    sink: &mut Sink,
) -> Result<(), AuditError> {
    let ends = audit.log.watermarks(&part.partition).await?;
    if ends.high <= part.read_to {
        return Ok(());
    }
    let mut reader = reader(audit, part, part.read_to).await?;
    while let Some(batch) = reader.next().await? {
        for record in &batch.records {
            outcomes.late(part.kind, record, ledger, sink);
        }
        part.read_to = part.read_to.max(batch.next_offset);
    }
    Ok(())
}
