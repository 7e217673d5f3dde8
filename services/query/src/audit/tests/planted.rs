//! Promises that are broken on purpose: one table, for every log.

use std::time::Duration;

use proto::topics::{Origin, origin};
use stream::{NewRecord, Position};

use super::super::{Audit, Kind, Violation};
use super::world::{World, named, run};
use crate::store::Seat;

/// A broken promise, and what the auditor must say about it.
struct Planted {
    what: &'static str,
    kind: Kind,
    input: Option<Position>,
    outcome: Option<Position>,
}

/// Breaks each promise once and audits.
pub(super) async fn each_is_found_at_its_place(mut world: World) {
    // Everything is decided when it audits: what is missing then is lost.
    world.patience = world.patience.min(Duration::from_millis(200));
    let inputs = world.submit(40).await;
    let [lost, doubled, letter] = [3, 4, 7].map(|n| inputs[n].clone());
    world
        .work(|record| {
            let outcome = || world.outcome(&record.position);
            if record.position == lost {
                vec![]
            } else if record.position == doubled {
                vec![outcome(), outcome()]
            } else if record.position == letter {
                // A dead letter is an outcome, too, and a copy beside it is none.
                let dead = NewRecord { topic: world.topics.dead_letters.as_str().into(), ..outcome() };
                vec![dead.clone(), NewRecord { headers: vec![], ..dead }]
            } else {
                vec![outcome()]
            }
        })
        .await;
    // Its input is there, and nobody has committed it: half of a torn transaction.
    let torn = world.submit(1).await.remove(0);
    let beyond = Position { offset: torn.offset + 99_999, ..torn.clone() };
    let nowhere = Position::new("no-such-topic", 0, 0);
    let nameless = NewRecord { headers: vec![], ..world.outcome(&lost) };
    let strays = vec![world.outcome(&torn), world.outcome(&beyond), world.outcome(&nowhere), nameless];
    let strays = world.log.append(strays).await.unwrap();
    let mut verdicts = world.projected().await;
    // The second one of the doubled has no row: it is of the same verdict id.
    verdicts.retain(|record| origin(&record.headers) != Origin::Input(named(&doubled)));
    let [gone, changed, copied] = [5, 6, 7].map(|n| verdicts[n].position.clone());
    let seat = |at: &Position| Seat::new(at.partition, at.offset);
    world.database.delete(seat(&gone));
    world.database.rename(seat(&changed));
    world.database.copy(seat(&copied), Seat::new(9, 0));

    let planted = |what, kind, input: Option<&Position>, outcome: Option<&Position>| Planted {
        what,
        kind,
        input: input.cloned(),
        outcome: outcome.cloned(),
    };
    let elsewhere = world.verdict_at(9, 0);
    let on_the_topics = [
        planted("a loss", Kind::MissingOutcome, Some(&lost), None),
        planted("a doubled outcome", Kind::DoubleOutcome, Some(&doubled), None),
        planted("a torn transaction", Kind::OutcomeWithoutInput, Some(&torn), Some(&strays[0])),
        planted("an outcome of nothing", Kind::OutcomeWithoutInput, Some(&beyond), Some(&strays[1])),
        planted("an outcome of no topic", Kind::OutcomeWithoutInput, Some(&nowhere), Some(&strays[2])),
        planted("an outcome without headers", Kind::UnreadableOutcome, None, Some(&strays[3])),
    ];
    let in_the_store = [
        planted("a missing row", Kind::MissingRow, None, Some(&gone)),
        planted("a row that was changed", Kind::MissingRow, None, Some(&changed)),
        planted("what it was changed to", Kind::RowWithoutVerdict, None, Some(&changed)),
        planted("a row without a verdict", Kind::RowWithoutVerdict, None, Some(&elsewhere)),
    ];
    compare(&world.audit(), on_the_topics.iter().chain(&in_the_store)).await;
    compare(&Audit { store: None, ..world.audit() }, on_the_topics.iter()).await;
}

async fn compare<'a>(audit: &Audit, planted: impl Iterator<Item = &'a Planted>) {
    let (report, mut found) = run(audit).await;
    assert_eq!((report.violations, report.dead_letters), (found.len() as u64, 1));
    for wanted in planted {
        let is_it = |v: &Violation| {
            // A doubled outcome has two positions: both are told.
            let told = |at: &Position| v.outcome.as_ref() == Some(at);
            v.kind == wanted.kind && v.input == wanted.input && wanted.outcome.as_ref().is_none_or(told)
        };
        let at = found.iter().position(is_it);
        let at = at.unwrap_or_else(|| panic!("{} is not found: {found:#?}", wanted.what));
        let violation = found.remove(at);
        let outcomes = violation.detail.matches(audit.topics.verdicts.as_str()).count();
        let expected = match wanted.kind {
            Kind::DoubleOutcome => 2,
            Kind::OutcomeWithoutInput => 1,
            _ => 0,
        };
        assert_eq!(outcomes, expected, "{}: {}", wanted.what, violation.detail);
    }
    assert!(found.is_empty(), "nobody planted {found:#?}");
}
