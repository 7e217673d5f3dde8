//! Reading the outcomes: each names its input, and no input may have two.

use std::collections::BTreeMap;

use forensics::{InputPosition, VerdictId};
use proto::topics::{Origin, origin};
use stream::{Position, ReadEnd, Reader, Record, StreamError};

use super::ledger::{Entry, Ledger};
use super::rows::RowWalk;
use super::sink::Sink;
use super::snapshot::{InputPart, OutcomeKind, OutcomePart, Snapshot};
use super::{Audit, AuditError, Kind, LISTED_MAX, Violation};
use crate::store::{Row, Seat};

/// What the first pass suspects; a second pass finds all outcomes concerned, if there are any.
#[derive(Default)]
pub(super) struct Outcomes {
    suspects: BTreeMap<Position, Suspect>,
    unlisted: u64,
}

struct Suspect {
    kind: Kind,
    /// Where its outcomes lie, and the ids of those that are verdicts.
    outcomes: Vec<(Position, Option<VerdictId>)>,
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
            Entry::Again => self.suspect(position(input), Kind::DoubleOutcome),
            Entry::NotCommitted => self.suspect(position(input), Kind::OutcomeWithoutInput),
        }
        Ok(kind == OutcomeKind::Verdict)
    }

    /// One record beyond the ends. Of those only what belongs to an input below the ends is judged.
    pub(super) fn late(&mut self, kind: OutcomeKind, record: &Record, ledger: &mut Ledger, sink: &mut Sink) {
        let Origin::Input(input) = origin(&record.headers) else { return };
        match ledger.note(&input) {
            Entry::First => {}
            Entry::Again => self.suspect(position(input), Kind::DoubleOutcome),
            Entry::BeyondRetention | Entry::NotCommitted => return,
        }
        count(kind, sink);
        // The projector's offset was read before the ends.
        sink.report.rows_pending += u64::from(kind == OutcomeKind::Verdict);
    }

    pub(super) fn suspect(&mut self, input: Position, kind: Kind) {
        if self.suspects.contains_key(&input) || self.suspects.len() < LISTED_MAX {
            self.suspects.entry(input).or_insert(Suspect { kind, outcomes: vec![] });
        } else {
            self.unlisted += 1;
        }
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
            let all: Vec<String> = suspect.outcomes.iter().map(|(place, _)| place.to_string()).collect();
            let all = all.join(" and ");
            let (detail, verdict_id) = match suspect.kind {
                Kind::DoubleOutcome => suspect.said_twice(&all),
                _ => (format!("its outcome is at {all}; {}", why_not(audit, snapshot, &input)), None),
            };
            let outcome = suspect.outcomes.last().map(|(place, _)| place.clone());
            let violation = Violation { kind: suspect.kind, input: Some(input), outcome, verdict_id, detail };
            sink.violation(violation).await?;
        }
        sink.unlisted(self.unlisted);
        Ok(())
    }

    async fn collect(&mut self, audit: &Audit, part: &OutcomePart) -> Result<(), AuditError> {
        let mut reader = reader(audit, part, part.low).await?;
        while let Some(batch) = reader.next().await? {
            for record in batch.records.iter().filter(|record| record.position.offset < part.read_to) {
                if let Origin::Input(input) = origin(&record.headers)
                    && let Some(suspect) = self.suspects.get_mut(&position(input))
                    // Three say enough.
                    && suspect.outcomes.len() < 3
                {
                    suspect.outcomes.push((record.position.clone(), verdict_id(part.kind, record)));
                }
            }
            if batch.next_offset >= part.read_to {
                break;
            }
        }
        Ok(())
    }
}

impl Suspect {
    /// With at-least-once delivery a verdict may come twice, but says the same: whether it does is worth knowing.
    fn said_twice(&self, all: &str) -> (String, Option<VerdictId>) {
        let first = self.outcomes.first().and_then(|(_, id)| *id);
        let same = first.filter(|_| self.outcomes.iter().all(|(_, id)| *id == first));
        let ids = if same.is_some() { "of one verdict id" } else { "not of one verdict id" };
        (format!("outcomes at {all}, {ids}"), same)
    }
}

/// Why this is no input that may have an outcome.
fn why_not(audit: &Audit, snapshot: &Snapshot, input: &Position) -> String {
    let group = &audit.worker_group;
    match snapshot.inputs.iter().find(|part| part.partition == input.topic_partition()) {
        None => "no media topic has this partition".to_owned(),
        Some(InputPart { committed_later: None, .. }) => {
            format!("group {group} has committed nothing there, or the log has forgotten it")
        }
        Some(part) if input.offset >= part.end() => {
            format!("group {group} has committed up to {}", part.end())
        }
        Some(_) => "no record is there".to_owned(),
    }
}

fn position(input: InputPosition) -> Position {
    Position::new(input.topic, input.partition, input.offset)
}

fn count(kind: OutcomeKind, sink: &mut Sink) {
    sink.report.outcomes += 1;
    match kind {
        OutcomeKind::Verdict => sink.report.verdicts += 1,
        OutcomeKind::DeadLetter => sink.report.dead_letters += 1,
    }
}

fn verdict_id(kind: OutcomeKind, record: &Record) -> Option<VerdictId> {
    let Position { partition, offset, .. } = record.position;
    let row = Row::decode(Seat::new(partition, offset), record.value.as_ref());
    row.ok().filter(|_| kind == OutcomeKind::Verdict).map(|(row, _)| row.verdict_id)
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
