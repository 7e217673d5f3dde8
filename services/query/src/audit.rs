//! The auditor: holds the topics against each other and against the store, position by position, while work goes on.
//!
//! Why it raises no false alarm: an input's offset commits in the transaction that writes its outcome. So committed
//! offsets are read first and the outcomes' ends afterwards: every input below the former has its outcome below the
//! latter. Then committed offsets are read once more: every outcome below the ends has its input below those. The
//! store's offsets are read before all of that, and rows at or beyond them are not judged. What retention removes
//! meanwhile is checked again before anything is called missing.
//!
//! Memory: one bit for each input offset, a batch of records, and the first [`LISTED_MAX`] violations.

mod inputs;
mod ledger;
mod outcomes;
mod rows;
mod sink;
mod snapshot;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use forensics::VerdictId;
use proto::topics::Topics;
use stream::{Log, Position, StreamError};
use tokio::sync::mpsc;

use crate::store::{Store, StoreError};
use ledger::Ledger;
use outcomes::Outcomes;
use sink::Sink;
use snapshot::Snapshot;

/// Violations that are listed with their positions; the rest are counted.
pub(crate) const LISTED_MAX: usize = 1_000;

/// What is audited.
#[derive(Clone)]
pub(crate) struct Audit {
    pub(crate) log: Arc<dyn Log>,
    /// `None`: the topics alone.
    pub(crate) store: Option<Store>,
    pub(crate) topics: Topics,
    pub(crate) worker_group: Arc<str>,
}

/// What an audit says while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Progress(Progress),
    Violation(Violation),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) phase: String,
    pub(crate) done: u64,
    pub(crate) total: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) kind: Kind,
    pub(crate) input: Option<Position>,
    pub(crate) outcome: Option<Position>,
    pub(crate) verdict_id: Option<VerdictId>,
    pub(crate) detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    MissingOutcome,
    DoubleOutcome,
    OutcomeWithoutInput,
    MissingRow,
    RowWithoutVerdict,
    UnreadableOutcome,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::MissingOutcome => "missing_outcome",
            Self::DoubleOutcome => "double_outcome",
            Self::OutcomeWithoutInput => "outcome_without_input",
            Self::MissingRow => "missing_row",
            Self::RowWithoutVerdict => "row_without_verdict",
            Self::UnreadableOutcome => "unreadable_outcome",
        }
    }
}

/// What was compared, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) inputs: u64,
    pub(crate) inputs_committed: u64,
    pub(crate) inputs_beyond_retention: u64,
    pub(crate) outcomes: u64,
    pub(crate) verdicts: u64,
    pub(crate) dead_letters: u64,
    pub(crate) rows: u64,
    pub(crate) rows_pending: u64,
    pub(crate) violations: u64,
    pub(crate) violations_unlisted: u64,
}

/// What keeps an audit from its report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuditError {
    #[error(transparent)]
    Log(#[from] StreamError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("nobody listens to the audit any more")]
    Abandoned,
}

impl Audit {
    /// Reads everything once (outcomes twice, if positions of violations have to be found) and reports.
    pub(crate) async fn run(&self, events: mpsc::Sender<Event>) -> Result<Report, AuditError> {
        let snapshot = Snapshot::take(self).await?;
        let mut ledger = Ledger::new(&snapshot);
        let mut sink = Sink::new(events, snapshot.records());

        let mut outcomes = Outcomes::default();
        for part in &snapshot.outcomes {
            outcomes.read(self, part, &mut ledger, &mut sink).await?;
        }
        rows::beyond_the_topic(self, &snapshot, &mut sink).await?;
        let retained_since_ms = outcomes::retained_since_ms(self, &snapshot).await?;
        for input in &snapshot.inputs {
            inputs::read(self, input, &mut ledger, retained_since_ms, &mut sink).await?;
        }
        outcomes.add_unmatched(self, &snapshot, &ledger).await?;
        outcomes.name(self, &snapshot, &mut sink).await?;
        Ok(sink.report)
    }
}
