//! The auditor: holds the topics against each other and against the store, position by position, while work goes on.
//!
//! Why it raises no false alarm: an input's offset commits in the transaction that writes its outcome. So committed
//! offsets are read first and the outcomes' ends afterwards: every input below the former has its outcome below the
//! latter, on a log that decides a transaction in one stroke. Kafka decides it one partition after the other, and its
//! readers end at the last stable offset, which the open transaction of a killed worker holds back together with
//! everybody's outcomes behind it. So before an outcome is called missing, it is looked for beyond the ends, for as
//! long as `query.audit_patience`. Then committed offsets are read once more: every outcome below the ends has its input below
//! those, for the log tells no offset that a transaction is about to move. The store's offsets are read before all of
//! that, and rows at or beyond them are not judged. What retention removes meanwhile is checked again before anything
//! is called missing.
//!
//! Offsets have gaps: transaction markers and aborted records occupy some. No outcome is asked for those, and one that
//! names them has no input.
//!
//! Memory: one bit for each input offset, a batch of records, what is suspected up to a bound, and the first
//! [`LISTED_MAX`] violations.

mod inputs;
mod late;
mod ledger;
mod outcomes;
mod retention;
mod rows;
mod sink;
mod snapshot;
mod suspects;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use forensics::VerdictId;
use proto::topics::Topics;
use stream::local::Clock;
use stream::{Log, Position, StreamError};
use tokio::sync::mpsc;

use crate::store::{Store, StoreError};
use inputs::Inputs;
use late::Late;
use ledger::Ledger;
use outcomes::Outcomes;
use retention::Removed;
use sink::Sink;
use snapshot::Snapshot;

/// Violations that are listed with their positions; the rest are counted.
pub(crate) const LISTED_MAX: usize = 1_000;

/// How often the log is asked again meanwhile. Chosen.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is audited.
#[derive(Clone)]
pub(crate) struct Audit {
    pub(crate) log: Arc<dyn Log>,
    /// `None`: the topics alone.
    pub(crate) store: Option<Store>,
    pub(crate) topics: Topics,
    pub(crate) worker_group: Arc<str>,
    /// How long what is missing is looked for: as long as a transaction may be in doubt.
    pub(crate) patience: Duration,
    /// Tells what retention may have removed.
    pub(crate) clock: Clock,
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
    /// Beyond the first of their input, of workers that deliver at least once, and saying the same.
    pub(crate) outcomes_repeated: u64,
    /// Of such workers, whose offset was not committed yet.
    pub(crate) outcomes_uncommitted: u64,
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
        let mut snapshot = Snapshot::take(self).await?;
        let mut ledger = Ledger::new(&snapshot);
        let mut sink = Sink::new(events, snapshot.records());

        let mut outcomes = Outcomes::default();
        for part in &snapshot.outcomes {
            outcomes.read(self, part, &mut ledger, &mut sink).await?;
        }
        rows::beyond_the_topic(self, &snapshot, &mut sink).await?;
        let mut inputs = Inputs {
            audit: self,
            removed: Removed::look(self, &snapshot).await?,
            late: Late::new(self, &mut snapshot.outcomes),
            ledger: &mut ledger,
            outcomes: &mut outcomes,
            sink: &mut sink,
        };
        for part in &snapshot.inputs {
            inputs.read(part).await?;
        }
        outcomes.suspects.judge(self, &snapshot, &mut sink).await?;
        Ok(sink.report)
    }
}
