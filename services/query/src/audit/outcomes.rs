//! Reading the outcomes: each names its input, and no input may have two.

use forensics::{InputPosition, VerdictId};
use proto::topics::{Origin, origin};
use stream::{Position, ReadEnd, Reader, Record, StreamError};

use super::ledger::{Entry, Ledger};
use super::rows::RowWalk;
use super::sink::Sink;
use super::snapshot::{OutcomeKind, OutcomePart};
use super::suspects::Suspects;
use super::{Audit, AuditError, Kind, Violation};
use crate::store::{Row, Seat};

/// Reads them, once.
#[derive(Default)]
pub(super) struct Outcomes {
    pub(super) suspects: Suspects,
}

impl Outcomes {
    pub(super) async fn read(
        &mut self,
        audit: &Audit,
        part: &OutcomePart,
        ledger: &mut Ledger,
        sink: &mut Sink,
    ) -> Result<(), AuditError> {
        let phase = format!("outcomes of {}", part.partition);
        let mut rows = RowWalk::new(audit, part);
        let mut reader = reader(audit, part, part.low).await?;
        let mut done = part.low;
        while let Some(batch) = reader.next().await? {
            let below = batch.next_offset.min(part.high);
            let records: Vec<&Record> =
                batch.records.iter().filter(|record| record.position.offset < part.high).collect();
            let mut verdicts = Vec::new();
            for record in records {
                if self.record(part.kind, record, ledger, sink).await?
                    && let Some(verdict) = readable(record, sink).await?
                {
                    verdicts.push(verdict);
                }
            }
            if part.kind == OutcomeKind::Verdict {
                rows.check(&verdicts, below, sink).await?;
            }
            sink.progress(&phase, below - done).await?;
            done = below;
            if batch.next_offset >= part.high {
                break;
            }
        }
        rows.finish(sink).await
    }

    /// One record of a topic of outcomes; whether it is a verdict.
    async fn record(
        &mut self,
        kind: OutcomeKind,
        record: &Record,
        ledger: &mut Ledger,
        sink: &mut Sink,
    ) -> Result<bool, AuditError> {
        let origin = origin(&record.headers);
        // A copy of a media beside its FAILED verdict is an attachment, no outcome.
        if kind == OutcomeKind::DeadLetter && origin == Origin::Absent {
            return Ok(false);
        }
        count(kind, sink);
        let Origin::Input(input) = origin else {
            let detail = "its headers do not name the input record".to_owned();
            sink.violation(unreadable(record, detail)).await?;
            return Ok(kind == OutcomeKind::Verdict);
        };
        match ledger.note(&input) {
            Entry::First | Entry::BeyondRetention => {}
            Entry::Again => self.suspects.note(position(input), Kind::DoubleOutcome),
            Entry::NotCommitted => self.suspects.note(position(input), Kind::OutcomeWithoutInput),
        }
        Ok(kind == OutcomeKind::Verdict)
    }

    /// One record beyond the ends. Of those only what belongs to an input below the ends is judged.
    pub(super) fn late(&mut self, kind: OutcomeKind, record: &Record, ledger: &mut Ledger, sink: &mut Sink) {
        let Origin::Input(input) = origin(&record.headers) else { return };
        match ledger.note(&input) {
            Entry::First => {}
            Entry::Again => self.suspects.note(position(input), Kind::DoubleOutcome),
            Entry::BeyondRetention | Entry::NotCommitted => return,
        }
        count(kind, sink);
        // The projector's offset was read before the ends.
        sink.report.rows_pending += u64::from(kind == OutcomeKind::Verdict);
    }
}

pub(super) fn position(input: InputPosition) -> Position {
    Position::new(input.topic, input.partition, input.offset)
}

fn count(kind: OutcomeKind, sink: &mut Sink) {
    sink.report.outcomes += 1;
    match kind {
        OutcomeKind::Verdict => sink.report.verdicts += 1,
        OutcomeKind::DeadLetter => sink.report.dead_letters += 1,
    }
}

pub(super) fn verdict_id(record: &Record) -> Option<VerdictId> {
    let Position { partition, offset, .. } = record.position;
    let row = Row::decode(Seat::new(partition, offset), record.value.as_ref());
    row.ok().map(|(row, _)| row.verdict_id)
}

pub(super) async fn reader(
    audit: &Audit,
    part: &OutcomePart,
    from: i64,
) -> Result<Box<dyn Reader>, StreamError> {
    audit.log.read(vec![(part.partition.clone(), from)], ReadEnd::Watermark).await
}

fn unreadable(record: &Record, detail: String) -> Violation {
    let outcome = Some(record.position.clone());
    Violation { kind: Kind::UnreadableOutcome, input: None, outcome, verdict_id: None, detail }
}

async fn readable(record: &Record, sink: &mut Sink) -> Result<Option<(i64, VerdictId)>, AuditError> {
    let Position { partition, offset, .. } = record.position;
    match Row::decode(Seat::new(partition, offset), record.value.as_ref()) {
        Ok((row, _)) => Ok(Some((offset, row.verdict_id))),
        Err(error) => {
            sink.violation(unreadable(record, error.to_string())).await?;
            Ok(None)
        }
    }
}
