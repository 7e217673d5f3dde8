//! Reading the inputs: each committed one must have had its outcome.

use stream::ReadEnd;

use super::ledger::Ledger;
use super::sink::Sink;
use super::snapshot::InputPart;
use super::{Audit, AuditError, Kind, Violation};

pub(super) async fn read(
    audit: &Audit,
    part: &InputPart,
    ledger: &mut Ledger,
    retained_since_ms: Option<i64>,
    sink: &mut Sink,
) -> Result<(), AuditError> {
    let phase = format!("inputs of {}", part.partition);
    let from = vec![(part.partition.clone(), part.low)];
    let mut reader = audit.log.read(from, ReadEnd::Watermark).await?;
    let mut done = part.low;
    while let Some(batch) = reader.next().await? {
        for record in &batch.records {
            let offset = record.position.offset;
            sink.report.inputs += 1;
            let has_outcome = ledger.take(&part.partition, offset);
            if offset >= part.committed {
                continue;
            }
            sink.report.inputs_committed += 1;
            if has_outcome {
                continue;
            }
            if retained_since_ms.is_some_and(|since| record.timestamp_ms <= since) {
                sink.report.inputs_beyond_retention += 1;
                continue;
            }
            let violation = Violation {
                kind: Kind::MissingOutcome,
                input: Some(record.position.clone()),
                outcome: None,
                verdict_id: None,
                detail: format!("committed up to {}, and no outcome names it", part.committed),
            };
            sink.violation(violation).await?;
        }
        let next = batch.next_offset.min(part.committed_later.max(done));
        sink.progress(&phase, next - done).await?;
        done = next;
    }
    Ok(())
}
