//! Reading the inputs: each committed one must have had its outcome.

use std::ops::Range;

use stream::{ReadEnd, Record};

use super::late::Late;
use super::ledger::Ledger;
use super::outcomes::Outcomes;
use super::retention::Removed;
use super::sink::Sink;
use super::snapshot::{InputPart, low_now};
use super::{Audit, AuditError, Kind, Violation};

/// What the inputs are held against.
pub(super) struct Inputs<'a> {
    pub(super) audit: &'a Audit,
    pub(super) removed: Removed,
    pub(super) late: Late<'a>,
    pub(super) ledger: &'a mut Ledger,
    pub(super) outcomes: &'a mut Outcomes,
    pub(super) sink: &'a mut Sink,
}

impl Inputs<'_> {
    /// Reads one partition.
    pub(super) async fn read(&mut self, part: &InputPart) -> Result<(), AuditError> {
        let phase = format!("inputs of {}", part.partition);
        let from = vec![(part.partition.clone(), part.low)];
        let mut reader = self.audit.log.read(from, ReadEnd::Watermark).await?;
        let (mut next, mut done) = (part.low, part.low);
        while let Some(batch) = reader.next().await? {
            for record in &batch.records {
                self.gap(part, next..record.position.offset).await?;
                next = record.position.offset + 1;
                self.input(part, record).await?;
            }
            let reached = batch.next_offset.min(part.end().max(done));
            self.sink.progress(&phase, reached - done).await?;
            done = reached;
        }
        self.gap(part, next..part.end()).await
    }

    async fn input(&mut self, part: &InputPart, record: &Record) -> Result<(), AuditError> {
        self.sink.report.inputs += 1;
        let offset = record.position.offset;
        if offset >= part.due() {
            return Ok(());
        }
        self.sink.report.inputs_committed += 1;
        if self.ledger.has(&part.partition, offset) {
            return Ok(());
        }
        if self.removed.excuses(record) {
            self.sink.report.inputs_beyond_retention += 1;
            return Ok(());
        }
        let Self { removed, late, ledger, outcomes, sink, .. } = self;
        if late.turns_up(&record.position, ledger, outcomes, sink).await? {
            return Ok(());
        }
        let hint = removed.hint(record);
        let violation = Violation {
            kind: Kind::MissingOutcome,
            input: Some(record.position.clone()),
            outcome: None,
            verdict_id: None,
            detail: format!("committed up to {}, and no outcome names it{hint}", part.due()),
        };
        self.sink.violation(violation).await
    }

    /// Offsets without a record that can be seen: none of them may have an outcome.
    async fn gap(&mut self, part: &InputPart, offsets: Range<i64>) -> Result<(), AuditError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let mut strays = self.ledger.noted(&part.partition, offsets).peekable();
        if strays.peek().is_none() {
            return Ok(());
        }
        // Inputs that retention removed meanwhile could not be read.
        let low = low_now(self.audit, &part.partition).await?;
        for offset in strays.filter(|offset| *offset >= low) {
            self.outcomes.suspects.note(part.partition.at(offset), Kind::OutcomeWithoutInput);
        }
        Ok(())
    }
}
