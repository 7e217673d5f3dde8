//! Reading the outcomes: each names its input, and no input may have two.

use std::collections::BTreeMap;

use forensics::InputPosition;
use proto::topics::{Origin, origin};
use stream::{Position, ReadEnd, Reader, Record, StreamError};

use super::ledger::{Entry, Ledger};
use super::rows::RowWalk;
use super::sink::Sink;
use super::snapshot::{OutcomeKind, OutcomePart, Snapshot, low_now};
use super::{Audit, AuditError, Kind, LISTED_MAX, Violation};
use crate::store::{Row, Seat};

/// What the first pass suspects; a second pass finds all outcomes concerned, if there are any.
#[derive(Default)]
pub(super) struct Outcomes {
    suspects: BTreeMap<InputPosition, Suspect>,
    unlisted: u64,
}

struct Suspect {
    kind: Kind,
    outcomes: Vec<Position>,
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
        let mut reader = reader(audit, part).await?;
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
        sink.report.outcomes += 1;
        match kind {
            OutcomeKind::Verdict => sink.report.verdicts += 1,
            OutcomeKind::DeadLetter => sink.report.dead_letters += 1,
        }
        let Origin::Input(input) = origin else {
            let detail = "its headers do not name the input record".to_owned();
            sink.violation(unreadable(record, detail)).await?;
            return Ok(kind == OutcomeKind::Verdict);
        };
        match ledger.note(&input) {
            Entry::First | Entry::BeyondRetention => {}
            Entry::Again => self.suspect(input, Kind::DoubleOutcome),
            Entry::NotCommitted => self.suspect(input, Kind::OutcomeWithoutInput),
        }
        Ok(kind == OutcomeKind::Verdict)
    }

    fn suspect(&mut self, input: InputPosition, kind: Kind) {
        if self.suspects.contains_key(&input) || self.suspects.len() < LISTED_MAX {
            self.suspects.entry(input).or_insert(Suspect { kind, outcomes: vec![] });
        } else {
            self.unlisted += 1;
        }
    }

    /// After the inputs were read: outcomes of offsets at which there is no record.
    pub(super) async fn add_unmatched(
        &mut self,
        audit: &Audit,
        snapshot: &Snapshot,
        ledger: &Ledger,
    ) -> Result<(), AuditError> {
        for input in &snapshot.inputs {
            let mut left = ledger.left(&input.partition).peekable();
            if left.peek().is_none() {
                continue;
            }
            // Inputs that retention removed meanwhile could not be read.
            let low = low_now(audit, &input.partition).await?;
            for offset in left.filter(|offset| *offset >= low) {
                let (topic, partition) = (input.partition.topic.to_string(), input.partition.partition);
                self.suspect(InputPosition { topic, partition, offset }, Kind::OutcomeWithoutInput);
            }
        }
        Ok(())
    }

    /// Finds the positions of what is suspected, and says it.
    pub(super) async fn name(
        mut self,
        audit: &Audit,
        snapshot: &Snapshot,
        sink: &mut Sink,
    ) -> Result<(), AuditError> {
        if !self.suspects.is_empty() {
            for part in &snapshot.outcomes {
                self.collect(audit, part).await?;
            }
        }
        for (input, suspect) in self.suspects {
            let all: Vec<String> = suspect.outcomes.iter().map(ToString::to_string).collect();
            let detail = match suspect.kind {
                Kind::DoubleOutcome => format!("outcomes at {}", all.join(" and ")),
                _ => format!("its outcome is at {}; no committed record is there", all.join(" and ")),
            };
            let violation = Violation {
                kind: suspect.kind,
                input: Some(Position::new(input.topic, input.partition, input.offset)),
                outcome: suspect.outcomes.last().cloned(),
                verdict_id: None,
                detail,
            };
            sink.violation(violation).await?;
        }
        sink.unlisted(self.unlisted);
        Ok(())
    }

    async fn collect(&mut self, audit: &Audit, part: &OutcomePart) -> Result<(), AuditError> {
        let mut reader = reader(audit, part).await?;
        while let Some(batch) = reader.next().await? {
            for record in batch.records.iter().filter(|record| record.position.offset < part.high) {
                if let Origin::Input(input) = origin(&record.headers)
                    && let Some(suspect) = self.suspects.get_mut(&input)
                    // Three say enough.
                    && suspect.outcomes.len() < 3
                {
                    suspect.outcomes.push(record.position.clone());
                }
            }
        }
        Ok(())
    }
}

async fn reader(audit: &Audit, part: &OutcomePart) -> Result<Box<dyn Reader>, StreamError> {
    audit.log.read(vec![(part.partition.clone(), part.low)], ReadEnd::Watermark).await
}

fn unreadable(record: &Record, detail: String) -> Violation {
    let outcome = Some(record.position.clone());
    Violation { kind: Kind::UnreadableOutcome, input: None, outcome, verdict_id: None, detail }
}

async fn readable(
    record: &Record,
    sink: &mut Sink,
) -> Result<Option<(i64, forensics::VerdictId)>, AuditError> {
    let Position { partition, offset, .. } = record.position;
    match Row::decode(Seat::new(partition, offset), record.value.as_ref()) {
        Ok((row, _)) => Ok(Some((offset, row.verdict_id))),
        Err(error) => {
            sink.violation(unreadable(record, error.to_string())).await?;
            Ok(None)
        }
    }
}

/// Where retention has removed outcomes, an input that is not younger than the oldest outcome left may have had one:
/// an outcome is written after its input. `None`: no outcome was removed.
pub(super) async fn retained_since_ms(audit: &Audit, snapshot: &Snapshot) -> Result<Option<i64>, AuditError> {
    let mut since = None;
    for part in &snapshot.outcomes {
        let low = low_now(audit, &part.partition).await?;
        if low == 0 {
            continue;
        }
        let mut reader = audit.log.read(vec![(part.partition.clone(), low)], ReadEnd::Watermark).await?;
        let mut oldest = i64::MAX;
        while let Some(batch) = reader.next().await? {
            if let Some(record) = batch.records.first() {
                oldest = record.timestamp_ms;
                break;
            }
        }
        since = since.max(Some(oldest));
    }
    Ok(since)
}
