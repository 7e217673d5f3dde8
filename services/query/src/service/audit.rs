//! `AuditService`: the auditor's findings as a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use ops::{Shutdown, Tasks};
use proto::server::deadline_of;
use proto::v1::{self, audit_service_server::AuditService, verify_response};
use stream::Position;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::audit::{Audit, AuditError, Event, Kind, Report, Violation};
use crate::error::QueryError;
use crate::metrics::Metrics;

/// Findings that wait for the caller; the audit goes at its pace.
const BUFFER: usize = 64;

type Answer = Result<v1::VerifyResponse, Status>;

/// Runs audits, a few at once.
#[derive(Clone)]
pub(crate) struct Audits {
    pub(crate) audit: Audit,
    pub(crate) room: Arc<Semaphore>,
    pub(crate) max: usize,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: Tasks,
    pub(crate) shutdown: Shutdown,
}

#[tonic::async_trait]
impl AuditService for Audits {
    type VerifyStream = Pin<Box<dyn Stream<Item = Answer> + Send + 'static>>;

    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let began = Instant::now();
        let answer = self.start(&request).map(Response::new).map_err(Status::from);
        self.metrics.answered("Verify", began, &answer);
        answer
    }
}

impl Audits {
    fn start(
        &self,
        request: &Request<v1::VerifyRequest>,
    ) -> Result<<Self as AuditService>::VerifyStream, QueryError> {
        let place = Arc::clone(&self.room).try_acquire_owned();
        let place = place.map_err(|_| QueryError::TooMany { what: "audits", max: self.max })?;
        let mut audit = self.audit.clone();
        if request.get_ref().skip_store {
            audit.store = None;
        }
        let deadline = deadline_of(request.metadata());
        let (events, findings) = mpsc::channel(BUFFER);
        let (last, end) = mpsc::channel(1);
        let (metrics, shutdown) = (self.metrics.clone(), self.shutdown.clone());
        self.tasks.spawn_finite("audit", async move {
            let _place = place;
            let answer = tokio::select! {
                biased;
                report = audit.run(events) => report_answer(report, &metrics),
                () = shutdown.requested() => Some(Err(QueryError::Leaving.into())),
                () = passed(deadline) => Some(Err(QueryError::Deadline.into())),
            };
            if let Some(answer) = answer {
                let _heard = last.send(answer).await.is_ok();
            }
        });
        let metrics = self.metrics.clone();
        let findings = ReceiverStream::new(findings).map(move |event| Ok(event_answer(event, &metrics)));
        Ok(Box::pin(findings.chain(ReceiverStream::new(end))))
    }
}

async fn passed(deadline: Option<Duration>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline).await,
        None => std::future::pending().await,
    }
}

fn report_answer(report: Result<Report, AuditError>, metrics: &Metrics) -> Option<Answer> {
    match report {
        Ok(report) => {
            let (violations, unlisted) = (report.violations, report.violations_unlisted);
            metrics.audit_violations.with_label_values(&["unlisted"]).inc_by(unlisted);
            let beyond_retention = report.inputs_beyond_retention;
            if beyond_retention > 0 {
                tracing::warn!(
                    beyond_retention,
                    "audit: inputs were not judged, for outcomes as old as theirs would be are removed"
                );
            }
            tracing::info!(violations, inputs = report.inputs, outcomes = report.outcomes, "audit ended");
            Some(Ok(response(verify_response::Event::Report(wire_report(&report)))))
        }
        Err(AuditError::Abandoned) => None,
        Err(AuditError::Log(error)) => Some(Err(QueryError::from(error).into())),
        Err(AuditError::Store(error)) => Some(Err(QueryError::from(error).into())),
    }
}

fn event_answer(event: Event, metrics: &Metrics) -> v1::VerifyResponse {
    response(match event {
        Event::Progress(progress) => verify_response::Event::Progress(v1::AuditProgress {
            phase: progress.phase,
            records_done: progress.done,
            records_total: progress.total,
        }),
        Event::Violation(violation) => {
            metrics.audit_violations.with_label_values(&[violation.kind.as_str()]).inc();
            if violation.kind == Kind::MissingOutcome {
                metrics.audit_missing.inc();
            }
            tracing::error!(kind = violation.kind.as_str(), "audit: {}", violation.detail);
            verify_response::Event::Violation(wire_violation(violation))
        }
    })
}

fn response(event: verify_response::Event) -> v1::VerifyResponse {
    v1::VerifyResponse { event: Some(event) }
}

fn wire_violation(violation: Violation) -> v1::AuditViolation {
    use v1::audit_violation::Kind as Wire;
    let place = |position: Position| v1::InputPosition {
        topic: position.topic.to_string(),
        partition: position.partition,
        offset: position.offset,
    };
    v1::AuditViolation {
        kind: match violation.kind {
            Kind::MissingOutcome => Wire::MissingOutcome,
            Kind::DoubleOutcome => Wire::DoubleOutcome,
            Kind::OutcomeWithoutInput => Wire::OutcomeWithoutInput,
            Kind::MissingRow => Wire::MissingRow,
            Kind::RowWithoutVerdict => Wire::RowWithoutVerdict,
            Kind::UnreadableOutcome => Wire::UnreadableOutcome,
        }
        .into(),
        input: violation.input.map(place),
        outcome: violation.outcome.map(place),
        verdict_id: violation.verdict_id.map(|id| id.to_string()).unwrap_or_default(),
        detail: violation.detail,
    }
}

fn wire_report(report: &Report) -> v1::AuditReport {
    v1::AuditReport {
        inputs: report.inputs,
        inputs_committed: report.inputs_committed,
        outcomes: report.outcomes,
        verdicts: report.verdicts,
        dead_letters: report.dead_letters,
        rows: report.rows,
        rows_pending: report.rows_pending,
        violations: report.violations,
        violations_unlisted: report.violations_unlisted,
        inputs_beyond_retention: report.inputs_beyond_retention,
        outcomes_repeated: report.outcomes_repeated,
        outcomes_uncommitted: report.outcomes_uncommitted,
    }
}
