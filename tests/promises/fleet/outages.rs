//! What the fleet stands on goes away under load and comes back: nothing is lost, nothing is judged wrongly meanwhile.

use e2e::fleet::{Fleet, Service};
use e2e::process::DEADLINE;
use testbed::until;

const LAG: &str = "touchstone_stream_kafka_lag_records";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_pause_the_work_and_lose_nothing() {
    let mut fleet = Fleet::builder().workers(2).partitions(4).start().await;
    an_object_store_that_is_away_judges_nothing(&mut fleet).await;
    a_fleet_that_is_asked_to_stop_finishes_what_it_began(&mut fleet).await;
}

/// The breaker: not ready, nothing judged, nothing dead-lettered, and the lag tells the truth.
async fn an_object_store_that_is_away_judges_nothing(fleet: &mut Fleet) {
    fleet.submit(100).await;
    fleet.settled().await;
    fleet.store().kill().expect("it can be killed");
    let before = fleet.count().await;
    fleet.submit(400).await;
    for worker in fleet.workers() {
        worker.wait_unready("object-store");
    }
    until("the lag is what was submitted", DEADLINE, || {
        let lags = fleet.workers().iter().map(|worker| worker.metric(LAG, ""));
        (lags.sum::<f64>() == 400.0).then_some(())
    });
    let verdicts = fleet.topics().verdicts.clone();
    assert_eq!(fleet.records(&verdicts).await.len(), before.verdicts, "nothing is judged meanwhile");

    fleet.store().restart().expect("it comes back");
    for worker in fleet.workers() {
        worker.wait_ready();
    }
    fleet.settled().await;
    until("nothing lags", DEADLINE, || {
        let lags = fleet.workers().iter().map(|worker| worker.metric(LAG, ""));
        (lags.sum::<f64>() == 0.0).then_some(())
    });
    fleet.verify().await;
}

/// SIGTERM under load: exit 0, and what was begun is committed, so that nobody does it again.
async fn a_fleet_that_is_asked_to_stop_finishes_what_it_began(fleet: &mut Fleet) {
    // Begun afresh, so that their last words speak of this chapter alone.
    for number in 0..2 {
        assert_eq!(fleet.worker(number).drain().code, Some(0));
    }
    let before = fleet.count().await.verdicts;
    for number in 0..2 {
        fleet.worker(number).start();
        fleet.worker(number).wait_ready();
    }
    fleet.balanced();
    let load = fleet.load(1_500);
    until("work is under way", DEADLINE, || (judged(fleet) > 50.0).then_some(()));
    // Together: of one that goes alone, the other would take over, and be counted twice.
    fleet.workers().iter_mut().for_each(Service::ask_to_stop);
    let mut begun = 0;
    for worker in fleet.workers() {
        let end = worker.ended();
        assert_eq!(end.code, Some(0), "{}", end.log);
        begun += begun_by(&end.log);
    }
    let verdicts = fleet.topics().verdicts.clone();
    let done = fleet.records(&verdicts).await.len() - before;
    assert_eq!(begun, done, "what was begun is committed");
    assert!(done > 50, "they were at work");
    load.done().await;
    for number in 0..2 {
        fleet.worker(number).start();
    }
    fleet.settled().await;
    fleet.verify().await;
}

/// Media that the workers of this life have judged.
fn judged(fleet: &mut Fleet) -> f64 {
    fleet.workers().iter().map(|worker| worker.metric("touchstone_worker_media_total", "")).sum()
}

/// How many media a life began, by its last words.
fn begun_by(log: &str) -> usize {
    // The process says the same after it, without the number.
    let is_farewell = |line: &&str| line.contains("worker drained") && line.contains("jobs");
    let words = log.lines().rev().find(is_farewell).expect("it says farewell");
    let words: serde_json::Value = serde_json::from_str(words).expect("it logs JSON");
    usize::try_from(words["jobs"].as_u64().expect("a number")).expect("few")
}
