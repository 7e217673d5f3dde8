//! Where findings go: counted always, listed up to a bound, progress a few times a second.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{AuditError, Event, LISTED_MAX, Progress, Report, Violation};

/// Ten a second is as fast as a person reads. Chosen.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

pub(super) struct Sink {
    pub(super) report: Report,
    events: mpsc::Sender<Event>,
    listed: usize,
    done: u64,
    total: u64,
    told: Option<Instant>,
}

impl Sink {
    pub(super) fn new(events: mpsc::Sender<Event>, total: u64) -> Self {
        Self { report: Report::default(), events, listed: 0, done: 0, total, told: None }
    }

    pub(super) async fn violation(&mut self, violation: Violation) -> Result<(), AuditError> {
        self.report.violations += 1;
        if self.listed >= LISTED_MAX {
            self.report.violations_unlisted += 1;
            return Ok(());
        }
        self.listed += 1;
        self.send(Event::Violation(violation)).await
    }

    /// Violations beyond the list.
    pub(super) fn unlisted(&mut self, violations: u64) {
        self.report.violations += violations;
        self.report.violations_unlisted += violations;
    }

    /// So many more offsets are done with.
    pub(super) async fn progress(&mut self, phase: &str, offsets: i64) -> Result<(), AuditError> {
        self.done = (self.done + u64::try_from(offsets).unwrap_or(0)).min(self.total);
        if self.told.is_some_and(|told| told.elapsed() < PROGRESS_EVERY) {
            return Ok(());
        }
        self.told = Some(Instant::now());
        let progress = Progress { phase: phase.to_owned(), done: self.done, total: self.total };
        self.send(Event::Progress(progress)).await
    }

    async fn send(&self, event: Event) -> Result<(), AuditError> {
        self.events.send(event).await.map_err(|_| AuditError::Abandoned)
    }
}
