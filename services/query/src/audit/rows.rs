//! Holding verdict records and rows against each other: both are ordered by the record's seat.

use std::collections::HashSet;

use forensics::VerdictId;
use stream::TopicPartition;

use super::sink::Sink;
use super::snapshot::{OutcomeKind, OutcomePart, Snapshot, low_now};
use super::{Audit, AuditError, Kind, Violation};
use crate::store::{Seat, Store};

/// Rows in memory at once.
const ROWS_MAX: usize = 2_048;

/// Walks the rows of one partition beside its records.
pub(super) struct RowWalk<'a> {
    audit: &'a Audit,
    partition: &'a TopicPartition,
    /// Rows below it are checked.
    next: i64,
    /// Rows at or above it are not judged: the projector had not come so far.
    projected: i64,
}

impl<'a> RowWalk<'a> {
    pub(super) fn new(audit: &'a Audit, part: &'a OutcomePart) -> Self {
        let projected = if part.kind == OutcomeKind::Verdict { part.projected } else { 0 };
        Self { audit, partition: &part.partition, next: part.low, projected }
    }

    /// The readable verdicts of the offsets up to `below`, in order.
    pub(super) async fn check(
        &mut self,
        verdicts: &[(i64, VerdictId)],
        below: i64,
        sink: &mut Sink,
    ) -> Result<(), AuditError> {
        let Some(store) = &self.audit.store else { return Ok(()) };
        let judged = verdicts.partition_point(|(offset, _)| *offset < self.projected);
        sink.report.rows_pending += (verdicts.len() - judged) as u64;
        let verdicts = &verdicts[..judged];
        let mut seated = vec![false; verdicts.len()];
        let below = below.min(self.projected);
        while self.next < below {
            let rows = store.seated(self.seat(self.next), self.seat(below), ROWS_MAX).await?;
            for (seat, verdict_id) in &rows {
                sink.report.rows += 1;
                let at = verdicts.binary_search_by_key(&seat.offset(), |(offset, _)| *offset);
                match at {
                    Ok(index) if verdicts[index].1 == *verdict_id => seated[index] = true,
                    _ => self.row_without_verdict(*seat, *verdict_id, sink).await?,
                }
            }
            self.next = match rows.last() {
                Some((seat, _)) if rows.len() == ROWS_MAX => seat.offset() + 1,
                _ => below,
            };
        }
        let unseated = verdicts.iter().zip(seated).filter(|(_, seated)| !seated);
        self.find_elsewhere(store, unseated.map(|(verdict, _)| *verdict).collect(), sink).await
    }

    /// A verdict that came twice has its row at its first seat.
    async fn find_elsewhere(
        &self,
        store: &Store,
        verdicts: Vec<(i64, VerdictId)>,
        sink: &mut Sink,
    ) -> Result<(), AuditError> {
        if verdicts.is_empty() {
            return Ok(());
        }
        let ids = verdicts.iter().map(|(_, id)| *id).collect();
        let known: HashSet<VerdictId> = store.known(ids).await?.into_iter().collect();
        for (offset, verdict_id) in verdicts.into_iter().filter(|(_, id)| !known.contains(id)) {
            let violation = Violation {
                kind: Kind::MissingRow,
                input: None,
                outcome: Some(self.partition.at(offset)),
                verdict_id: Some(verdict_id),
                detail: format!("projected up to {}, and no row has this id", self.projected),
            };
            sink.violation(violation).await?;
        }
        Ok(())
    }

    async fn row_without_verdict(
        &self,
        seat: Seat,
        verdict_id: VerdictId,
        sink: &mut Sink,
    ) -> Result<(), AuditError> {
        // The record may have gone by retention while it was read past.
        if seat.offset() < low_now(self.audit, self.partition).await? {
            return Ok(());
        }
        sink.violation(stray(self.partition, seat, verdict_id)).await
    }

    /// Rows behind the last record: the topic's end may lie below the projector's offset if it is another log.
    pub(super) async fn finish(mut self, sink: &mut Sink) -> Result<(), AuditError> {
        let projected = self.projected;
        self.check(&[], projected, sink).await
    }

    fn seat(&self, offset: i64) -> Seat {
        Seat::new(self.partition.partition, offset)
    }
}

fn stray(partition: &TopicPartition, seat: Seat, verdict_id: VerdictId) -> Violation {
    Violation {
        kind: Kind::RowWithoutVerdict,
        input: None,
        outcome: Some(partition.at(seat.offset())),
        verdict_id: Some(verdict_id),
        detail: "the row names this record, and it is not that verdict".to_owned(),
    }
}

/// Rows of partitions that the verdict topic does not have.
pub(super) async fn beyond_the_topic(
    audit: &Audit,
    snapshot: &Snapshot,
    sink: &mut Sink,
) -> Result<(), AuditError> {
    let Some(store) = &audit.store else { return Ok(()) };
    let mut from = Seat::new(snapshot.verdict_partitions(), 0);
    loop {
        let rows = store.seated(from, Seat::from_number(i64::MAX), ROWS_MAX).await?;
        for (seat, verdict_id) in &rows {
            sink.report.rows += 1;
            let partition = TopicPartition::new(audit.topics.verdicts.as_str(), seat.partition());
            sink.violation(stray(&partition, *seat, *verdict_id)).await?;
        }
        match rows.last() {
            Some((seat, _)) if rows.len() == ROWS_MAX => from = Seat::from_number(seat.number() + 1),
            _ => return Ok(()),
        }
    }
}
