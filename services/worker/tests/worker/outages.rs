//! An object store that is silent, as a whole or about one object; and one that is away.

use std::time::{Duration, Instant};

use forensics::{FailureClass, Outcome};

use crate::harness::{Running, Stage, Tap};

/// A test need not wait as long as a service does.
const IMPATIENT: [(&str, &str); 2] = [("T__S3__ATTEMPT_TIMEOUT", "1s"), ("T__S3__OPERATION_TIMEOUT", "2s")];

fn store_in_trouble(worker: &Running) -> Option<String> {
    let obstacles = worker.ops.readiness.obstacles();
    let store = obstacles.into_iter().find(|(gate, _)| gate == "object-store");
    store.map(|(_, why)| why).filter(|why| why.contains("unreachable"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_falls_silent_pauses_the_worker_and_fails_no_media() {
    let mut stage = Stage::new().await;
    stage.knobs.extend(IMPATIENT);
    let worker = stage.worker("worker-0");
    worker.ready().await;
    stage.store.set(Tap::Held);
    stage.submit_pictures(40).await;
    stage
        .until(async || store_in_trouble(&worker).is_some(), "the readiness page to name the silent store")
        .await;
    let why = store_in_trouble(&worker).expect("the store is still silent");
    // By the attempt's limit or by the operation's: both may end a silence first.
    assert!(why.contains("in media was not done within") || why.contains("in time"), "{why}");
    assert!(stage.outcomes().await.is_empty(), "nothing is judged meanwhile");
    stage.store.set(Tap::Open);
    stage.until_outcomes(40).await;
    worker.ready().await;
    assert_eq!(worker.stop().await, Ok(()));
    stage.assert_exactly_once(40).await;
    let verdicts = stage.verdicts().await;
    assert!(verdicts.iter().all(|verdict| verdict.outcome == Outcome::LikelyForged), "{verdicts:?}");
    assert!(stage.records(&stage.topics.dead_letters).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passes_in_silence_is_the_stores_and_not_the_medias() {
    let mut stage = Stage::new().await;
    stage.knobs.extend([("T__S3__ATTEMPT_TIMEOUT", "1s"), ("T__WORKER__EXAMINE__DEADLINE", "1500ms")]);
    stage.knobs.push(("T__S3__ATTEMPTS_MAX", "9"));
    stage.store.set(Tap::Held);
    stage.submit_pictures(12).await;
    let worker = stage.worker("worker-0");
    stage
        .until(async || store_in_trouble(&worker).is_some(), "the readiness page to name the silent store")
        .await;
    let begin = Instant::now();
    stage.until(async || begin.elapsed().as_secs() >= 3, "twice the deadline to pass").await;
    assert!(stage.outcomes().await.is_empty(), "nothing is judged meanwhile");
    stage.store.set(Tap::Open);
    stage.until_outcomes(12).await;
    assert_eq!(worker.stop().await, Ok(()));
    stage.assert_exactly_once(12).await;
    let verdicts = stage.verdicts().await;
    assert!(verdicts.iter().all(|verdict| verdict.outcome == Outcome::LikelyForged), "{verdicts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_object_that_never_comes_is_one_media_that_fails() {
    let mut stage = Stage::new().await;
    stage.knobs.extend(IMPATIENT);
    stage.store.get_stuck_on("3.png");
    stage.submit_pictures(8).await;
    let worker = stage.worker("worker-0");
    stage.until_outcomes(8).await;
    assert_eq!(store_in_trouble(&worker), None, "the store answers everything else");
    assert_eq!(worker.stop().await, Ok(()));
    stage.assert_exactly_once(8).await;
    for verdict in stage.verdicts().await {
        let stuck = verdict.media_id.as_str() == "m3";
        let timed_out = Outcome::Failed(FailureClass::TimedOut);
        assert_eq!(verdict.outcome, if stuck { timed_out } else { Outcome::LikelyForged });
    }
}

/// How long the store is away.
const AWAY: Duration = Duration::from_secs(60);

/// What a worker with default settings may ask of a store that is away for a minute, tries of connections included:
/// one attempt for each media that was taken in when it went (there are 40), the 20 retries that may be saved up, and
/// the probes. Those come after 0.2, 0.4, … 6.4 s and then each 10 s: 11 in a minute, of 4 attempts at most.
const ASKED_MAX: usize = 40 + 20 + 11 * 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_for_a_minute_costs_nothing_but_the_minute() {
    let mut stage = Stage::new().await;
    // As a service waits.
    stage.knobs.clear();
    let worker = stage.worker("worker-0");
    worker.ready().await;
    stage.store.set(Tap::Away);
    let gone = Instant::now();
    stage.submit_pictures(40).await;
    let names_it = async || store_in_trouble(&worker).is_some();
    stage.until(names_it, "the readiness page to name the store that is away").await;
    // The intake pauses: of these nothing is asked while the store is away.
    stage.submit_more_pictures(40..400).await;
    let is_over = async || {
        let why = store_in_trouble(&worker);
        assert!(why.is_some() && !worker.ops.readiness.is_ready(), "not ready, {:?} into it", gone.elapsed());
        gone.elapsed() >= AWAY
    };
    stage.until(is_over, "a minute to pass").await;
    assert!(stage.outcomes().await.is_empty(), "nothing is judged meanwhile");
    assert!(stage.records(&stage.topics.dead_letters).await.is_empty());
    let asked = stage.store.turned_away();
    assert!((1..=ASKED_MAX).contains(&asked), "asked {asked} times");
    stage.store.set(Tap::Open);
    stage.until_outcomes(400).await;
    worker.ready().await;
    assert_eq!(worker.stop().await, Ok(()));
    stage.assert_exactly_once(400).await;
    let verdicts = stage.verdicts().await;
    assert!(verdicts.iter().all(|verdict| verdict.outcome == Outcome::LikelyForged), "{verdicts:?}");
    assert!(stage.records(&stage.topics.dead_letters).await.is_empty());
}
