//! Objects from the store, with the patience that the store's state asks for.

use std::future::Future;

use forensics::{Bucket, FailureClass, ObjectRef};
use media::{Disposition, FetchError, FetchedObject, Listed, Stopwatch, SystemicCause};

use super::Rooms;

/// An object that the store fails on, while it answers everything else, is at fault itself after so many
/// tries: or one poisonous object would hold its partition for ever. Chosen: between any two of them a probe
/// has found the store well.
const BLAMED_MAX: u32 = 5;

/// Why objects could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is a video.
    Video,
    /// It is their own fault.
    Failed(FailureClass, String),
}

/// The objects below a prefix, in natural order.
pub(super) async fn list(
    rooms: &Rooms,
    bucket: &Bucket,
    prefix: &str,
    time: &Stopwatch,
) -> Result<Vec<Listed>, Unread> {
    let timer = rooms.metrics.stages.list.start_timer();
    let store = rooms.store.timed_by(time);
    let listed = patiently(rooms, bucket, time, || store.list(bucket, prefix)).await;
    timer.observe_duration();
    listed
}

/// One object, read to its end.
pub(super) async fn fetch(
    rooms: &Rooms,
    bucket: &Bucket,
    object: &ObjectRef,
    time: &Stopwatch,
) -> Result<FetchedObject, Unread> {
    let timer = rooms.metrics.stages.fetch.start_timer();
    let store = rooms.store.timed_by(time);
    let fetched = patiently(rooms, bucket, time, || store.fetch(bucket, object)).await;
    timer.observe_duration();
    fetched
}

/// Asks the store for the first time: a worker that starts in an outage says so, and waits for its end.
pub(crate) async fn greet(rooms: &Rooms, bucket: &Bucket) {
    if probe(rooms, bucket).await {
        rooms.breaker.greet();
    }
}

/// Waits until the store is well again, and probes it when no job does: none may be left, or none begun.
pub(crate) async fn wait_out(rooms: &Rooms) {
    match rooms.breaker.troubled() {
        Some(bucket) => rooms.breaker.pass(|| probe(rooms, &bucket)).await,
        None => rooms.breaker.closed().await,
    }
}

/// Whether a job's time was taken up by a store that answers nobody. If so, waits until it is well again, and takes
/// that time back.
pub(super) async fn outage(rooms: &Rooms, bucket: &Bucket, time: &Stopwatch) -> bool {
    if !time.is_running() || rooms.breaker.still_answers(|| probe(rooms, bucket)).await {
        return false;
    }
    rooms.breaker.pass(|| probe(rooms, bucket)).await;
    time.rewind_run();
    true
}

/// Asks the store again and again, as long as it is the store that is in trouble; what that took is taken off the
/// job's `time`. The room's own quick attempts are behind every error that arrives here.
async fn patiently<T, F>(
    rooms: &Rooms,
    bucket: &Bucket,
    time: &Stopwatch,
    attempt: impl Fn() -> F,
) -> Result<T, Unread>
where
    F: Future<Output = Result<T, FetchError>>,
{
    let (mut slow, mut blamed) = (0, 0);
    loop {
        rooms.breaker.pass(|| probe(rooms, bucket)).await;
        let before = time.time();
        let error = match Box::pin(attempt()).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let cause = match error.disposition() {
            Disposition::Reject(class) => return Err(Unread::Failed(class, error.detail())),
            Disposition::Retry if !rooms.breaker.still_answers(|| probe(rooms, bucket)).await => {
                SystemicCause::Unreachable
            }
            Disposition::Retry if slow < rooms.config.slow_retries => {
                slow += 1;
                rooms.metrics.retries.with_label_values(&["slow"]).inc();
                continue;
            }
            Disposition::Retry => return Err(Unread::Failed(FailureClass::TimedOut, error.detail())),
            Disposition::Pause(cause) => cause,
            Disposition::Fatal => {
                tracing::error!("a request to the object store cannot be made: {error}");
                return Err(Unread::Failed(FailureClass::InvalidReference, error.detail()));
            }
        };
        time.rewind(before);
        blamed += u32::from(may_be_the_objects(cause));
        if blamed == BLAMED_MAX {
            let detail = format!("{}; the store answers other requests", error.detail());
            return Err(Unread::Failed(FailureClass::TimedOut, detail));
        }
        rooms.metrics.retries.with_label_values(&[cause.as_str()]).inc();
        rooms.breaker.open(cause, bucket, &error.to_string());
    }
}

/// Wrong credentials, a wrong clock or too many requests never come from one object.
fn may_be_the_objects(cause: SystemicCause) -> bool {
    matches!(cause, SystemicCause::Unreachable | SystemicCause::ServerError)
}

/// Whether the store answers: that it refuses or lacks this bucket is an answer too. Silence is none: a store that
/// does not even say whether it has a bucket is in trouble as a whole.
async fn probe(rooms: &Rooms, bucket: &Bucket) -> bool {
    let Err(error) = rooms.store.probe(bucket).await else { return true };
    let cause = match error.disposition() {
        Disposition::Pause(cause) => cause,
        Disposition::Retry => SystemicCause::Unreachable,
        Disposition::Reject(_) => return true,
        Disposition::Fatal => return false,
    };
    // Keeps the reason on the readiness page fresh.
    rooms.breaker.open(cause, bucket, &error.to_string());
    false
}
