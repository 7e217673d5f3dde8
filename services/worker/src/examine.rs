//! The corridor: one media from its reference to its verdict, top to bottom.

mod frame;
mod store;
mod summary;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use forensics::media::FRAMES_MAX;
use forensics::{FailureClass, NotApplicableReason, ObjectRef, Outcome, Source};
use futures::{FutureExt, StreamExt, TryStreamExt};
use media::{DecodePool, Listed, ObjectStore};
use tokio::sync::Semaphore;

use crate::batcher::Scorer;
use crate::breaker::Breaker;
use crate::budget::ByteBudget;
use crate::clerk::{Clerk, End};
use crate::config::ExamineConfig;
use crate::faces::FaceFinder;
use crate::job::Job;
use crate::metrics::Metrics;
use store::Unread;

pub(crate) use store::{greet, wait_out};

/// The rooms along the corridor.
pub(crate) struct Rooms {
    pub(crate) store: ObjectStore,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) decode: DecodePool,
    /// Pictures being decoded, or decoded and waiting for room in `pixels`: what that budget cannot know yet.
    pub(crate) decode_places: Semaphore,
    /// Room for decoded frames and their crops.
    pub(crate) pixels: ByteBudget,
    pub(crate) faces: FaceFinder,
    pub(crate) scorer: Scorer,
    pub(crate) clerk: Arc<Clerk>,
    pub(crate) config: ExamineConfig,
    pub(crate) metrics: Metrics,
    pub(crate) failpoints: ops::Failpoints,
}

/// The worker is going down: no verdict, another worker will examine the media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interrupted;

/// Examines one media. Every way out but an interruption is an end of it.
pub(crate) async fn examine(job: &Job, rooms: &Rooms) -> Result<End, Interrupted> {
    let started = Instant::now();
    let mut end = match in_time(job, rooms, look(job, rooms)).await {
        Some(end) => end?,
        None => End::failed(
            FailureClass::TimedOut,
            format!(
                "not done within {:?}; submit it again, or raise worker.examine.deadline",
                rooms.config.deadline
            ),
        ),
    };
    end.timings.queued = queued(job);
    end.timings.total = started.elapsed();
    rooms.metrics.stages.examine.observe(end.timings.total.as_secs_f64());
    Ok(end)
}

/// Lets the work go on until the job's time is over; `None` then. Where the time went by waiting for a store that
/// answers nobody, it is not the media's: the outage is waited out.
async fn in_time<T>(job: &Job, rooms: &Rooms, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    loop {
        if let Some(done) = job.time.within(rooms.config.deadline, work.as_mut()).await {
            return Some(done);
        }
        tokio::select! {
            biased;
            done = work.as_mut() => return Some(done),
            outage = store::outage(rooms, job.reference.source.bucket(), &job.time) => {
                if !outage {
                    return None;
                }
            }
        }
    }
}

async fn look(job: &Job, rooms: &Rooms) -> Result<End, Interrupted> {
    let objects = match objects(job, rooms).await {
        Ok(objects) => objects,
        Err(Unread::Video) => {
            let outcome = Outcome::NotApplicable(NotApplicableReason::UnsupportedMedia);
            return Ok(End::without_scores(outcome, "this worker has no video decoder; submit frames"));
        }
        Err(Unread::Failed(class, detail)) => return Ok(End::failed(class, detail)),
    };
    let (listed, sampled) = sample(objects);
    let frames: Vec<_> = futures::stream::iter(sampled.into_iter().zip(0u32..))
        .map(|(object, index)| frame::examine(job, rooms, object, index).boxed())
        .buffered(rooms.config.frames_per_job)
        .try_collect()
        .await?;
    Ok(summary::sum_up(frames, listed, rooms))
}

/// The objects behind a reference, in order.
async fn objects(job: &Job, rooms: &Rooms) -> Result<Vec<Listed>, Unread> {
    match &job.reference.source {
        Source::Frames { objects, .. } => Ok(objects.iter().map(named).collect()),
        Source::Image { object, .. } => Ok(vec![named(object)]),
        Source::Prefix { bucket, prefix } => store::list(rooms, bucket, prefix, &job.time).await,
        Source::Video { .. } => Err(Unread::Video),
    }
}

/// An object that the reference itself names.
fn named(object: &ObjectRef) -> Listed {
    Listed { key: object.key.as_str().to_owned(), object: Ok(object.clone()) }
}

/// At most [`FRAMES_MAX`] of them, evenly; and how many there were.
fn sample(objects: Vec<Listed>) -> (usize, Vec<Listed>) {
    let listed = objects.len();
    if listed <= FRAMES_MAX {
        return (listed, objects);
    }
    let chosen = media::sample::evenly(listed, FRAMES_MAX);
    (listed, chosen.into_iter().map(|index| objects[index].clone()).collect())
}

/// From submission to now, by the wall clock: the two ends are on two machines.
fn queued(job: &Job) -> std::time::Duration {
    let submitted = job.reference.submitted_at.unwrap_or_else(|| job.input.written_at());
    job.input.taken_in_at.duration_since(submitted).unwrap_or_default()
}
