//! Outcomes that are there twice, or before their offset: what at-least-once delivery may leave, and what nothing may.

use std::collections::BTreeMap;

use proto::topics::{AT_LEAST_ONCE, headers};
use proto::v1;
use stream::NewRecord;

use super::super::Kind;
use super::world::{World, run};

fn at_least_once(record: NewRecord) -> NewRecord {
    record.with_header(headers::DELIVERY, AT_LEAST_ONCE)
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_that_say_they_may_repeat_may_and_must_agree() {
    let mut world = World::local(30).await;
    let inputs = world.submit(12).await;
    let [same, rescored, letters, parsed, exact] = [0, 1, 2, 3, 4].map(|n| inputs[n].clone());
    let [over, back, over_twice, over_rescored] = [5, 6, 7, 8].map(|n| inputs[n].clone());
    world
        .work(|record| {
            let at = &record.position;
            let once = || world.outcome(at);
            let first = || at_least_once(once());
            let with = |change: fn(&mut v1::Verdict)| at_least_once(world.outcome_with(at, change));
            let letter = || NewRecord { topic: world.topics.dead_letters.as_str().into(), ..first() };
            match at {
                at if *at == same => vec![first(), with(|verdict| verdict.attempt = 2)],
                at if *at == rescored => vec![first(), with(|verdict| verdict.probability = Some(0.91))],
                // The fleet has changed over; a worker of before may come in late.
                at if *at == over => vec![first(), first(), once()],
                at if *at == back => vec![once(), first()],
                at if *at == over_twice => vec![first(), once(), once()],
                at if *at == over_rescored => {
                    vec![first(), world.outcome_with(at, |verdict| verdict.probability = Some(0.91))]
                }
                at if *at == exact => vec![once(), once()],
                at if *at == letters => vec![letter(), letter(), letter()],
                at if *at == parsed => vec![first(), letter()],
                _ => vec![first()],
            }
        })
        .await;
    // Written, and the worker has died before it could commit their offsets.
    let ahead = world.submit(3).await;
    let first = |n: usize| at_least_once(world.outcome(&ahead[n]));
    let rescored_ahead =
        at_least_once(world.outcome_with(&ahead[2], |verdict| verdict.probability = Some(0.1)));
    let beyond = stream::Position { offset: ahead[0].offset + 99_999, ..ahead[0].clone() };
    let of_nothing = at_least_once(world.outcome(&beyond));
    let written = vec![first(0), first(1), first(1), first(2), rescored_ahead, of_nothing];
    world.log.append(written).await.unwrap();
    world.projected().await;

    let (report, found) = world.verify().await;
    let kinds: BTreeMap<_, _> = found.iter().map(|v| (v.input.clone().unwrap(), v.kind)).collect();
    let expected = [
        (rescored, Kind::DoubleOutcome),
        (over_twice, Kind::DoubleOutcome),
        (over_rescored, Kind::DoubleOutcome),
        (exact, Kind::DoubleOutcome),
        (parsed, Kind::DoubleOutcome),
        (ahead[2].clone(), Kind::DoubleOutcome),
        (beyond, Kind::OutcomeWithoutInput),
    ];
    assert_eq!(kinds, expected.into(), "{found:#?}");
    assert_eq!(found.len(), kinds.len(), "{found:#?}");
    assert_eq!((report.outcomes_repeated, report.outcomes_uncommitted), (1 + 2 + 2 + 1, 1 + 2));
    for violation in found {
        let why = match violation.kind {
            Kind::OutcomeWithoutInput => "has committed up to",
            _ if violation.verdict_id.is_some() => "not all but one delivered at-least-once",
            _ => "do not say the same",
        };
        assert!(violation.detail.contains(why), "{violation:?}");
    }
}

/// On a log that delivers at least once: a worker wrote its outcomes, died, and the next one did the work again.
pub(super) async fn done_again_after_a_death(mut world: World) {
    let inputs = world.submit(10).await;
    world.log.append(inputs.iter().map(|input| world.outcome(input)).collect()).await.unwrap();
    let (report, found) = run(&world.audit()).await;
    assert_eq!((report.inputs_committed, report.outcomes_uncommitted, found), (0, 10, vec![]));
    world.one_each().await;
    world.projected().await;
    let (report, found) = world.verify().await;
    assert_eq!(found, []);
    assert_eq!((report.inputs_committed, report.outcomes, report.rows), (10, 20, 10));
    assert_eq!((report.outcomes_repeated, report.outcomes_uncommitted), (10, 0));
}
