//! The beginning of the corridor: records become jobs, as fast as there is room, and jobs end when their
//! partition goes elsewhere. The only room that listens to the shutdown.

mod hand;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forensics::FailureClass;
use futures::FutureExt;
use ops::{Exit, ExitReason, Gate, Shutdown, TaskHandle, Tasks};
use stream::{Disposition, LogHealth, Member, MemberEvent, StreamError, TopicPartition};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::{self, Admission, Door};
use crate::budget::{IntakeBudget, Permit};
use crate::clerk::{Clerk, End};
use crate::config::IntakeConfig;
use crate::examine::{self, Interrupted, Rooms};
use crate::job::{Input, Job, Subject};
use crate::metrics::Metrics;
use crate::publish::{self, Begun, Note};
use hand::{Hand, Pending};

/// A log that fails to answer is asked again after so long.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Takes records in, from joining to leaving.
pub(crate) struct Intake {
    pub(crate) member: Box<dyn Member>,
    pub(crate) door: Door,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) notes: mpsc::Sender<Note>,
    pub(crate) config: IntakeConfig,
    pub(crate) topics: proto::topics::Topics,
    pub(crate) slot: Arc<str>,
    pub(crate) gate: Gate,
    pub(crate) health: watch::Receiver<LogHealth>,
    /// The partitions in hand, for whoever follows them.
    pub(crate) assigned: watch::Sender<Vec<TopicPartition>>,
    pub(crate) shutdown: Shutdown,
    pub(crate) tasks: Tasks,
}

/// What the loop does next.
enum Step {
    Shutdown,
    Event(Result<MemberEvent, StreamError>),
    Room(Permit),
    Pause,
    /// A job ended, the breaker moved, a pause after an error is over: look again.
    Look,
    Health,
}

impl Intake {
    /// Takes in until shutdown, drains, waits for `publisher`, and leaves the group.
    pub(crate) async fn run(mut self, publisher: TaskHandle) -> Result<(), Exit> {
        let mut jobs = JoinSet::new();
        let ended = self.take_in(&mut jobs).await;
        if let Err(exit) = &ended {
            self.gate.not_ready(exit.why.clone());
            self.tasks.fail(exit.clone());
        }
        let drained = if self.tasks.failure().is_some() {
            // What jobs still do could not be committed, or not in time: others will do it.
            jobs.shutdown().await;
            Ok(())
        } else {
            self.drain(&mut jobs).await
        };
        let Self { member, notes, shutdown, gate, rooms, slot, .. } = self;
        // The jobs' copies are gone too: the publisher commits what is ready and ends.
        drop(notes);
        tokio::select! {
            () = publisher.ended() => {}
            () = shutdown.drain_expired() => {}
        }
        if let Err(error) = member.leave().await {
            tracing::warn!("the group did not hear that this worker leaves: {error}");
        }
        if ended.is_ok() && drained.is_ok() {
            gate.remove();
            let begun = rooms.metrics.stages.examine.get_sample_count() + rooms.metrics.dropped_jobs.get();
            tracing::info!(slot = &*slot, jobs = begun, "worker drained");
        }
        ended.and(drained)
    }

    async fn take_in(&mut self, jobs: &mut JoinSet<()>) -> Result<(), Exit> {
        let budget = IntakeBudget::new(
            self.config.uncommitted_max,
            self.config.uncommitted_bytes_max,
            self.rooms.metrics.uncommitted.clone(),
        );
        let low_water = self.config.jobs_max.min(self.config.fetch_records_max);
        let mut hand = Hand::new(low_water, self.config.pause_after);
        let mut retry_at: Option<Instant> = None;
        self.show_health();
        loop {
            while jobs.try_join_next().is_some() {}
            let open = self.rooms.breaker.is_open();
            while !open
                && hand.next().is_some_and(|next| jobs.len() < self.config.jobs_max || !next.is_job())
                && let Some(permit) = hand.next().and_then(|next| budget.try_admit(next.bytes()))
            {
                self.admit(&mut hand, permit, jobs).await;
            }
            self.flow(&mut hand, open);
            let metrics = &self.rooms.metrics;
            metrics.jobs.set(i64::try_from(jobs.len()).unwrap_or(i64::MAX));
            metrics.pending.set(i64::try_from(hand.len()).unwrap_or(i64::MAX));
            match self.wait(&hand, &budget, jobs, &mut retry_at).await {
                Step::Shutdown => return Ok(()),
                Step::Event(event) => {
                    if !self.take_event(&mut hand, event, &mut retry_at).await? {
                        return Ok(());
                    }
                }
                Step::Room(permit) => self.admit(&mut hand, permit, jobs).await,
                Step::Pause => {
                    let partitions = hand.pause();
                    tracing::info!("no room for more: partitions are paused");
                    self.member.pause(&partitions);
                    self.rooms.metrics.paused.set(1);
                }
                Step::Look => {}
                Step::Health => self.show_health(),
            }
        }
    }

    /// Waits for the next thing to do. Choosing is here, changing is in the loop.
    async fn wait(
        &mut self,
        hand: &Hand,
        budget: &IntakeBudget,
        jobs: &mut JoinSet<()>,
        retry_at: &mut Option<Instant>,
    ) -> Step {
        let rooms = Arc::clone(&self.rooms);
        let open = rooms.breaker.is_open();
        let next = hand.next().filter(|next| !open && (jobs.len() < self.config.jobs_max || !next.is_job()));
        let wanted = next.map(Pending::bytes);
        let sleep_until = async |at: Option<Instant>| match at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        };
        let breaker_moves = async {
            if open {
                Box::pin(examine::wait_out(&rooms)).await;
            } else {
                rooms.breaker.opened().await;
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.requested() => Step::Shutdown,
            Some(_) = jobs.join_next(), if !jobs.is_empty() => Step::Look,
            permit = budget.admit(wanted.unwrap_or_default()), if wanted.is_some() => Step::Room(permit),
            event = self.member.next(), if hand.listens(open) && retry_at.is_none() => Step::Event(event),
            () = sleep_until(*retry_at), if retry_at.is_some() => {
                *retry_at = None;
                Step::Look
            }
            () = sleep_until(hand.pause_at()), if hand.pause_at().is_some() => Step::Pause,
            () = breaker_moves => Step::Look,
            Ok(()) = self.health.changed() => Step::Health,
        }
    }

    /// Starts or stops the clock of backpressure, and resumes what was paused when there is room again.
    fn flow(&mut self, hand: &mut Hand, open: bool) {
        if let Some(partitions) = hand.flow(open, Instant::now()) {
            self.member.resume(&partitions);
            self.rooms.metrics.paused.set(0);
        }
    }

    /// Takes an event of the member; false when the publisher is gone and there is nobody to work for.
    async fn take_event(
        &mut self,
        hand: &mut Hand,
        event: Result<MemberEvent, StreamError>,
        retry_at: &mut Option<Instant>,
    ) -> Result<bool, Exit> {
        let note = match event {
            Ok(MemberEvent::Assigned(assigned)) => {
                hand.assign(&assigned);
                if hand.is_paused() {
                    // A new assignment starts unpaused.
                    let partitions: Vec<_> = assigned.iter().map(|new| new.partition.clone()).collect();
                    self.member.pause(&partitions);
                }
                Note::Assigned(assigned)
            }
            Ok(MemberEvent::Revoked { partitions, lost }) => {
                tracing::info!(?partitions, lost, "partitions revoked, their jobs are dropped");
                hand.revoke(&partitions);
                Note::Revoked { partitions, lost }
            }
            Ok(MemberEvent::Records { partition, epoch, records }) => {
                let Some(revoked) = hand.token(&partition, epoch) else { return Ok(true) };
                let begun = records
                    .iter()
                    .map(|record| Begun { offset: record.position.offset, written_ms: record.timestamp_ms })
                    .collect();
                self.rooms.failpoints.reach("taken-in");
                let taken_in_at = SystemTime::now();
                let lane = self.topics.lane(&partition.topic).unwrap_or(forensics::Lane::Standard);
                for record in records {
                    let attempt = admission::attempt(&record);
                    let partition = partition.clone();
                    let input = Input { partition, epoch, record, lane, attempt, taken_in_at };
                    hand.push(lane, Pending { admission: self.door.admit(input), revoked: revoked.clone() });
                }
                Note::Started { partition, epoch, lane, records: begun }
            }
            Err(error) => {
                *retry_at = Some(self.bear(&error)?);
                return Ok(true);
            }
        };
        if !matches!(note, Note::Started { .. }) {
            let partitions = hand.partitions();
            self.rooms.metrics.partitions.set(i64::try_from(partitions.len()).unwrap_or(i64::MAX));
            self.assigned.send_replace(partitions);
        }
        Ok(self.notes.send(note).await.is_ok())
    }

    /// What to do about an error of the log: wait, or leave.
    fn bear(&self, error: &StreamError) -> Result<Instant, Exit> {
        match error.disposition() {
            Disposition::Retry | Disposition::Pause => {
                self.gate.not_ready(error.to_string());
                tracing::warn!("the log does not answer, asking again: {error}");
                Ok(Instant::now() + RETRY_PAUSE)
            }
            Disposition::Restart => Err(publish::fenced(&self.slot, &error.to_string())),
            Disposition::Reject | Disposition::Fatal => Err(error.clone().into()),
        }
    }

    fn show_health(&mut self) {
        match &*self.health.borrow_and_update() {
            LogHealth::Ready => self.gate.ready(),
            LogHealth::NotReady { reason } => self.gate.not_ready(reason.to_string()),
        }
    }

    /// Lets the head of the queue in: a job starts, or a refusal is written at once.
    async fn admit(&mut self, hand: &mut Hand, permit: Permit, jobs: &mut JoinSet<()>) {
        let Some(Pending { admission, revoked }) = hand.pop() else { return };
        let clerk = &self.rooms.clerk;
        let (input, mut written) = match admission {
            Admission::Examine(job) => {
                let conduct = conduct(job, Arc::clone(&self.rooms), self.notes.clone(), permit).boxed();
                jobs.spawn(until_revoked(conduct, revoked, self.rooms.metrics.dropped_jobs.clone()));
                return;
            }
            Admission::DeadLetter { input, why } => {
                let written = clerk.dead_letter(&input, why);
                (input, written)
            }
            Admission::Refused { input, subject, class, why } => {
                let verdict = clerk.verdict(&subject, &input, End::failed(class, why));
                let written = clerk.write(&input, &verdict, false);
                (input, written)
            }
        };
        written.permit = Some(permit);
        send(&self.notes, input, written).await;
    }

    /// Lets the jobs finish, until the drain deadline. Records in hand are left to others.
    async fn drain(&mut self, jobs: &mut JoinSet<()>) -> Result<(), Exit> {
        if !jobs.is_empty() {
            tracing::info!(jobs = jobs.len(), "draining");
        }
        loop {
            tokio::select! {
                biased;
                ended = jobs.join_next() => {
                    if ended.is_none() {
                        return Ok(());
                    }
                }
                () = self.shutdown.drain_expired() => break,
            }
        }
        let left = jobs.len();
        jobs.shutdown().await;
        let why = format_args!(
            "the drain deadline passed with {left} media under examination; others will do them"
        )
        .to_string();
        Err(ExitReason::Temporary.because(why))
    }
}

/// One job from start to note.
async fn conduct(job: Box<Job>, rooms: Arc<Rooms>, notes: mpsc::Sender<Note>, permit: Permit) {
    let examined = contained(&job, &rooms.metrics, examine::examine(&job, &rooms)).await;
    let Ok(end) = examined else { return };
    let mut written = write(&job, &rooms.clerk, end, &rooms);
    written.permit = Some(permit);
    let Job { input, .. } = *job;
    send(&notes, input, written).await;
}

fn write(job: &Job, clerk: &Clerk, end: End, rooms: &Rooms) -> crate::clerk::Written {
    let suspicious = end.suspicious;
    let verdict = clerk.verdict(&Subject::from(&job.reference), &job.input, end);
    if let Some(due) = verdict.due_at {
        let left = due.duration_since(verdict.created_at).unwrap_or(Duration::ZERO);
        rooms.metrics.time_to_due.observe(left.as_secs_f64());
    }
    clerk.write(&job.input, &verdict, suspicious)
}

/// Runs an examination; a panic in it becomes an end. A panic is a bug of ours that this media's pictures have
/// found. The class is DECODE: of all the code a job runs, only decoding and cropping meet foreign bytes, and
/// the class is final, so that a poisonous media is not tried for ever. A copy goes to the dead letters,
/// because a person should look.
async fn contained(
    job: &Job,
    metrics: &Metrics,
    examination: impl Future<Output = Result<End, Interrupted>>,
) -> Result<End, Interrupted> {
    let panic = match AssertUnwindSafe(examination).catch_unwind().await {
        Ok(ended) => return ended,
        Err(panic) => panic,
    };
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    let media = ops::log_key(job.reference.media_id.as_str());
    tracing::error!(media.id = media, position = %job.input.position(), "a job panicked: {text}");
    metrics.panics.inc();
    let detail =
        format!("the worker met a bug of its own on this media: {text}; a copy is on the dead-letter topic");
    Ok(End { suspicious: true, ..End::failed(FailureClass::Decode, detail) })
}

async fn until_revoked(
    work: impl Future<Output = ()>,
    revoked: CancellationToken,
    dropped: ops::metrics::IntCounter,
) {
    tokio::select! {
        biased;
        () = revoked.cancelled() => dropped.inc(),
        () = work => {}
    }
}

async fn send(notes: &mpsc::Sender<Note>, input: Input, written: crate::clerk::Written) {
    let (partition, epoch, offset) = (input.partition, input.epoch, input.record.position.offset);
    // Without a publisher the process is on its way out: the record will be examined again.
    let note = Note::Finished { partition, epoch, offset, written: Box::new(written) };
    drop(notes.send(note).await);
}

#[cfg(test)]
mod tests;
