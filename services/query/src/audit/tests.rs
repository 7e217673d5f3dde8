mod database;
mod kafka;
mod planted;
mod repeated;
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use stream::NewRecord;
use world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_log_has_no_violations() {
    clean(World::local(30).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_promise_is_found_at_its_place() {
    planted::each_is_found_at_its_place(World::local(30).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_records_flow_there_are_no_false_alarms() {
    flowing(World::local(30).await, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn violations_beyond_the_list_are_counted() {
    let mut world = World::local(30).await;
    world.submit(1_200).await;
    world.work(|_| vec![]).await;
    // What is missing is waited for once, not once each.
    world.patience = Duration::from_millis(300);
    let began = Instant::now();
    let (report, found) = world.verify().await;
    assert!(began.elapsed() >= world.patience);
    assert_eq!((report.violations, report.violations_unlisted, found.len()), (1_200, 200, LISTED_MAX));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_removed_is_no_violation() {
    let mut world = World::local(30).await;
    world.submit(20).await;
    world.one_each().await;
    world.later(8).await;
    world.submit(10).await;
    world.one_each().await;
    world.projected().await;
    let (report, found) = world.verify().await;
    assert_eq!((report.inputs_committed, report.outcomes, found), (10, 30, vec![]), "inputs are gone");

    let mut world = World::local(3).await;
    world.submit(20).await;
    world.one_each().await;
    world.projected().await;
    world.later(5).await;
    world.submit(10).await;
    world.one_each().await;
    world.projected().await;
    let (report, found) = world.verify().await;
    assert_eq!(found, [], "outcomes are gone, rows stay");
    assert_eq!((report.inputs_committed, report.inputs_beyond_retention), (30, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_retention_has_emptied_excuses_only_what_it_may_have_held() {
    let world = World::local(3).await;
    world.submit(20).await;
    world.one_each().await;
    world.later(5).await;
    // All verdicts are gone. This one is too young to have been among them.
    let lost = world.submit(1).await;
    world.work(|_| vec![]).await;
    let (report, found) = world.verify().await;
    let inputs: Vec<_> = found.iter().map(|violation| violation.input.clone().unwrap()).collect();
    assert_eq!((inputs, report.inputs_beyond_retention), (lost, 20), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_went_by_age_excuse_no_verdict() {
    let world = World::local(30).await;
    let lost = world.submit(10).await.remove(3);
    let rubbish = world.submit_rubbish(4).await;
    world
        .work(|record| {
            let outcome = world.outcome(&record.position);
            if record.position == lost {
                vec![]
            } else if rubbish.contains(&record.position) {
                vec![NewRecord { topic: world.topics.dead_letters.as_str().into(), ..outcome }]
            } else {
                vec![outcome]
            }
        })
        .await;
    world.later(3).await;
    let (report, found) = world.verify().await;
    let inputs: Vec<_> = found.iter().map(|violation| violation.input.clone().unwrap()).collect();
    assert_eq!((inputs, report.inputs_beyond_retention), (vec![lost], 4), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_young_remainder_excuses_no_loss_that_age_cannot_have_removed() {
    let world = World::local(3).await;
    world.submit(20).await;
    world.one_each().await;
    world.later(5).await;
    // The first outcomes are gone, and the oldest that is left is younger than what was lost.
    let mut lost = world.submit(4).await;
    lost.sort();
    world.work(|_| vec![]).await;
    world.later(2).await;
    world.submit(20).await;
    world.one_each().await;
    let (report, found) = world.verify().await;
    let mut inputs: Vec<_> = found.iter().map(|violation| violation.input.clone().unwrap()).collect();
    inputs.sort();
    assert_eq!((inputs, report.inputs_beyond_retention, report.inputs_committed), (lost, 20, 44));
    assert!(
        found.iter().all(|v| v.kind == Kind::MissingOutcome && v.detail.contains("too young to go by age"))
    );
    world.later(3).await;
    let (report, found) = world.verify().await;
    assert_eq!(
        (report.inputs_beyond_retention, found),
        (4, vec![]),
        "by now age excuses it, and the first are gone"
    );
}

/// Nothing is wrong, and nothing is found.
async fn clean(mut world: World) {
    let empty = world.verify().await;
    assert_eq!(empty, (Report::default(), vec![]));
    world.submit(700).await;
    world.one_each().await;
    world.submit(5).await;
    world.projected().await;
    let (report, violations) = world.verify().await;
    assert_eq!(violations, []);
    let expected = Report {
        inputs: 705,
        inputs_committed: 700,
        outcomes: 700,
        verdicts: 700,
        rows: 700,
        ..Report::default()
    };
    // Inputs that nobody has committed need not be read.
    assert_eq!(Report { inputs: 705, ..report }, expected);
}

/// Audits, one after the other, while a worker is at work.
async fn flowing(world: World, rounds: usize) {
    let world = Arc::new(world);
    let busy = Arc::clone(&world);
    let worker = world.ops.tasks.spawn_finite("worker", async move {
        for _ in 0..rounds {
            busy.submit(60).await;
            busy.one_each().await;
        }
    });
    let mut audits = 0;
    while !worker.has_ended() || audits == 0 {
        let (report, found) = world.verify().await;
        assert_eq!(found, [], "{report:?}");
        audits += 1;
    }
    let (report, found) = world.verify().await;
    let all = 60 * rounds as u64;
    assert_eq!((report.inputs_committed, report.outcomes, found), (all, all, vec![]));
}
