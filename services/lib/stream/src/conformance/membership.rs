//! Groups: who owns what, and how it changes hands.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::FutureExt;

use super::Case;
use super::stage::{Stage, Watched, committed, values};
use crate::record::TopicPartition;

pub(crate) const CASES: &[Case] = &[
    Case { name: "rejoining-goes-on-from-the-commit", run: |stage| rejoin(stage).boxed_local() },
    Case {
        name: "two-members-share-and-each-record-has-one-owner",
        run: |stage| shared(stage).boxed_local(),
    },
    Case { name: "who-leaves-is-succeeded", run: |stage| leave(stage).boxed_local() },
    Case { name: "who-is-dropped-is-succeeded", run: |stage| dropped(stage).boxed_local() },
    Case { name: "groups-do-not-disturb-each-other", run: |stage| two_groups(stage).boxed_local() },
    Case { name: "pausing-holds-one-partition", run: |stage| pause(stage).boxed_local() },
    Case { name: "an-abandoned-wait-loses-nothing", run: |stage| abandoned(stage).boxed_local() },
];

/// Takes events of two members until this is so.
async fn until_both(
    stage: &Stage,
    what: &str,
    pair: &mut [Watched; 2],
    done: impl Fn(&[Watched; 2]) -> bool,
) {
    let work = async {
        while !done(pair) {
            let [first, second] = pair;
            tokio::select! {
                event = first.step() => { event.expect("members go on"); }
                event = second.step() => { event.expect("members go on"); }
            }
        }
    };
    stage.soon(what, work).await;
}

async fn rejoin(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let group = stage.name("group");
    let offsets = stage.append(&partition, &["a", "b", "c", "d", "e"]).await;
    let mut member = stage.member(&group, &[Arc::clone(&topic)]).await;
    member.until("all records", |member| member.records.len() == 5).await;
    let mut two = member.offsets(None);
    two[0].next_offset = offsets[1] + 1;
    committed(member.commit(Vec::new(), two).await);
    stage.soon("leave", member.member.leave()).await.expect("members can leave");

    let mut again = stage.member(&group, &[topic]).await;
    again.until("an assignment", |member| member.owned.len() == 1).await;
    assert_eq!(again.owned[&partition].1, offsets[1] + 1);
    again.until("the rest", |member| member.records.len() == 3).await;
    assert_eq!(values(&again.records), ["c", "d", "e"]);
}

async fn shared(stage: &mut Stage) {
    let topic = stage.topic(4).await;
    let group = stage.name("group");
    let first = stage.member(&group, &[Arc::clone(&topic)]).await;
    let second = stage.member(&group, &[Arc::clone(&topic)]).await;
    let mut pair = [first, second];
    let halves = |pair: &[Watched; 2]| pair.iter().all(|member| member.owned.len() == 2);
    until_both(stage, "two partitions each", &mut pair, halves).await;
    let owned: BTreeSet<_> = pair.iter().flat_map(|member| member.owned.keys().cloned()).collect();
    assert_eq!(owned.len(), 4, "no partition has two owners");
    for member in &mut pair {
        member.records.clear();
    }
    for index in 0..4 {
        stage.append(&TopicPartition::new(Arc::clone(&topic), index), &["x", "y", "z"]).await;
    }
    let all = |pair: &[Watched; 2]| pair.iter().map(|member| member.records.len()).sum::<usize>() >= 12;
    until_both(stage, "all records", &mut pair, all).await;
    let positions: BTreeSet<_> =
        pair.iter().flat_map(|member| member.records.iter().map(|record| record.position.clone())).collect();
    assert_eq!(positions.len(), 12, "each record went to one member");
    assert!(pair.iter().all(|member| member.records.len() == 6));
}

async fn leave(stage: &mut Stage) {
    let topic = stage.topic(4).await;
    let group = stage.name("group");
    for index in 0..4 {
        stage.append(&TopicPartition::new(Arc::clone(&topic), index), &["a", "b"]).await;
    }
    let first = stage.member(&group, &[Arc::clone(&topic)]).await;
    let second = stage.member(&group, &[Arc::clone(&topic)]).await;
    let mut pair = [first, second];
    let halves = |pair: &[Watched; 2]| {
        pair.iter().all(|member| {
            member.owned.len() == 2 && member.owned.values().all(|(_, next_offset)| *next_offset > 0)
        })
    };
    until_both(stage, "two partitions each, read", &mut pair, halves).await;
    let [first, mut second] = pair;
    let kept = second.owned.clone();
    let done = first.offsets(None);
    committed(first.commit(Vec::new(), done.clone()).await);
    stage.soon("leave", first.member.leave()).await.expect("members can leave");

    second.records.clear();
    second.until("all partitions", |member| member.owned.len() == 4).await;
    for (partition, (epoch, _)) in &kept {
        assert_eq!(second.owned[partition].0, *epoch, "what it keeps stays as it was");
    }
    for offset in done {
        assert_eq!(second.owned[&offset.partition].1, offset.next_offset, "it goes on where the other ended");
        stage.append(&offset.partition, &["c"]).await;
    }
    second
        .until("the new records", |member| values(&member.records).iter().filter(|v| **v == "c").count() == 2)
        .await;
}

async fn dropped(stage: &mut Stage) {
    let topic = stage.topic(2).await;
    let group = stage.name("group");
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    stage.append(&partition, &["a"]).await;
    let mut first = stage.member(&group, &[Arc::clone(&topic)]).await;
    first.until("the record", |member| member.records.len() == 1).await;
    drop(first);
    let mut second = stage.member(&group, &[topic]).await;
    second
        .until("all partitions and the record", |member| member.owned.len() == 2 && member.records.len() == 1)
        .await;
}

async fn two_groups(stage: &mut Stage) {
    let topic = stage.topic(2).await;
    let groups = [stage.name("one"), stage.name("two")];
    let partition = TopicPartition::new(Arc::clone(&topic), 1);
    stage.append(&partition, &["a", "b"]).await;
    for group in &groups {
        let mut member = stage.member(group, &[Arc::clone(&topic)]).await;
        member.until("all records", |member| member.records.len() == 2 && member.owned.len() == 2).await;
        if group == &groups[0] {
            committed(member.commit(Vec::new(), member.offsets(Some(&partition))).await);
        }
    }
    assert!(stage.committed(&groups[0], &partition).await.is_some());
    assert_eq!(stage.committed(&groups[1], &partition).await, None);
}

async fn pause(stage: &mut Stage) {
    let topic = stage.topic(2).await;
    let (held, open) =
        (TopicPartition::new(Arc::clone(&topic), 0), TopicPartition::new(Arc::clone(&topic), 1));
    let group = stage.name("group");
    let mut member = stage.member(&group, &[topic]).await;
    member.until("both partitions", |member| member.owned.len() == 2).await;
    stage.append(&held, &["before"]).await;
    member.until("the first record", |member| member.records.len() == 1).await;

    member.member.pause(std::slice::from_ref(&held));
    stage.append(&held, &["held 1", "held 2"]).await;
    for round in 0..3 {
        stage.append(&open, &[&format!("open {round}")]).await;
        let last = format!("open {round}");
        member.until("the open partition", |member| values(&member.records).contains(&last)).await;
    }
    assert!(!values(&member.records).iter().any(|value| value.starts_with("held")), "paused is paused");
    member.member.resume(std::slice::from_ref(&held));
    member.until("the held records", |member| member.records.len() == 6).await;
    assert_eq!(values(&member.records)[4..], ["held 1", "held 2"]);
}

async fn abandoned(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let partition = TopicPartition::new(Arc::clone(&topic), 0);
    let texts: Vec<String> = (0..200).map(|index| index.to_string()).collect();
    stage.append(&partition, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let group = stage.name("group");
    let mut member = stage.member(&group, &[topic]).await;
    let deadline = stage.subject.deadline();
    let work = async {
        while member.records.len() < texts.len() {
            // Begun and dropped, begun and awaited, in turn. What a dropped call gave was not given: `step` counts.
            if let Some(event) = member.step().now_or_never() {
                event.expect("members go on");
            }
            if member.records.len() < texts.len() {
                member.step().await.expect("members go on");
            }
        }
    };
    assert!(tokio::time::timeout(deadline, work).await.is_ok(), "all records: not within {deadline:?}");
    assert_eq!(values(&member.records), texts);
}
