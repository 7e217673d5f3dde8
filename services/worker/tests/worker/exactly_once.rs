//! One outcome per input, whatever happens to the workers.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::{Stage, Tap};
use ops::ExitReason;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_dropped_where_it_stands_leaves_nothing_undone_or_doubled() {
    let stage = Stage::new().await;
    let count = 400;
    stage.submit_pictures(count).await;
    for crash in 1..=4 {
        let worker = stage.worker("worker-0");
        stage.until_outcomes(crash * count / 8).await;
        worker.crash().await;
    }
    let worker = stage.worker("worker-0");
    stage.until_outcomes(count).await;
    assert_eq!(worker.stop().await, Ok(()));
    stage.assert_exactly_once(count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_leaves_nothing_to_be_done_again() {
    let stage = Stage::new().await;
    let count = 400;
    stage.submit_pictures(count).await;
    let worker = stage.worker("worker-0");
    stage.until_outcomes(count / 8).await;
    assert_eq!(worker.stop().await, Ok(()));
    let done = stage.outcomes().await.len();
    assert_eq!(stage.store.reads(), done, "what was begun is finished and committed");
    let next = stage.worker("worker-0");
    stage.until_outcomes(count).await;
    assert_eq!(next.stop().await, Ok(()));
    stage.assert_exactly_once(count).await;
    assert_eq!(stage.store.most_reads(), 1, "no object was read twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_takes_too_long_is_exit_75_and_loses_nothing() {
    let mut stage = Stage::new().await;
    stage.drain = Duration::from_millis(200);
    stage.store.set(Tap::Held);
    stage.submit_pictures(8).await;
    let worker = stage.worker("worker-0");
    stage.until(async || stage.store.reads() == 8, "all to be under way").await;
    let exit = worker.stop().await.unwrap_err();
    assert_eq!(exit.reason, ExitReason::Temporary);
    assert!(exit.why.contains("8 media"), "{exit}");
    stage.store.set(Tap::Open);
    stage.drain = Duration::from_secs(20);
    let next = stage.worker("worker-0");
    stage.until_outcomes(8).await;
    assert_eq!(next.stop().await, Ok(()));
    stage.assert_exactly_once(8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_worker_takes_its_share_without_doing_anything_twice() {
    let stage = Stage::new().await;
    let count = 600;
    stage.submit_pictures(count).await;
    let one = stage.worker("worker-0");
    stage.until_outcomes(count / 12).await;
    // Their jobs in flight are dropped where a partition moves, and done again by its new owner. The first one must not be
    // done with everything before.
    stage.store.set(Tap::Held);
    let two = stage.worker("worker-1");
    let jobs = || {
        let families = two.ops.registry.gather();
        let family = families.iter().find(|family| family.name() == "touchstone_worker_jobs_in_flight")?;
        Some(family.get_metric().first()?.get_gauge().get_value())
    };
    stage.until(async || jobs() > Some(0.0), "the second to be at work").await;
    stage.store.set(Tap::Open);
    stage.until_outcomes(count).await;
    assert_eq!(two.stop().await, Ok(()));
    assert_eq!(one.stop().await, Ok(()));
    stage.assert_exactly_once(count).await;
    let slots: BTreeSet<String> = ["worker-0", "worker-1"].map(str::to_owned).into();
    assert_eq!(stage.slots().await, slots);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_slot_is_taken_leaves_with_75() {
    let stage = Stage::new().await;
    stage.store.set(Tap::Held);
    stage.submit_pictures(4).await;
    let older = stage.worker("worker-0");
    stage.until(async || stage.store.reads() == 4, "the older one to be at work").await;
    let newer = stage.worker("worker-0");
    stage.until(async || stage.store.reads() >= 8, "the newer one to be at work").await;
    stage.store.set(Tap::Open);
    let exit = older.ended().await.unwrap_err();
    assert_eq!(exit.reason, ExitReason::Temporary, "{exit}");
    assert!(exit.why.contains("worker-0"), "{exit}");
    stage.until_outcomes(4).await;
    assert_eq!(newer.stop().await, Ok(()));
    stage.assert_exactly_once(4).await;
}
