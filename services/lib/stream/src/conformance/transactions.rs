//! Transactions: both or neither, by the owner or not at all.

use std::sync::Arc;

use futures::FutureExt;

use super::Case;
use super::stage::{Stage, committed, keyed, rewound, stale, values};
use crate::error::StreamError;
use crate::member::{AbortReason, AssignmentEpoch, Commit};
use crate::record::TopicPartition;

pub(crate) const CASES: &[Case] = &[
    Case { name: "records-and-offsets-appear-together", run: |stage| together(stage).boxed_local() },
    Case { name: "offsets-alone-records-alone-nothing", run: |stage| parts(stage).boxed_local() },
    Case {
        name: "a-failed-transaction-leaves-nothing-and-rewinds",
        run: |stage| failed(stage).boxed_local(),
    },
    Case { name: "a-stale-epoch-refuses-all-of-it", run: |stage| stale_epoch(stage).boxed_local() },
    Case { name: "who-left-commits-nothing", run: |stage| left(stage).boxed_local() },
    Case { name: "a-newer-holder-of-the-slot-fences", run: |stage| fenced(stage).boxed_local() },
    Case { name: "gaps-do-not-stop-readers", run: |stage| gaps(stage).boxed_local() },
];

async fn together(stage: &mut Stage) {
    let (input, output) = (stage.topic(1).await, stage.topic(2).await);
    let partition = TopicPartition::new(Arc::clone(&input), 0);
    let results = [TopicPartition::new(Arc::clone(&output), 0), TopicPartition::new(Arc::clone(&output), 1)];
    let group = stage.name("group");
    stage.append(&partition, &["a", "b", "c"]).await;
    let mut member = stage.member(&group, &[input]).await;
    member.until("the records", |member| member.records.len() == 3).await;
    assert_eq!(stage.committed(&group, &partition).await, None);

    let records = vec![keyed(&results[1], "B"), keyed(&results[0], "A"), keyed(&results[1], "C")];
    let positions = committed(member.commit(records, member.offsets(None)).await);
    assert_eq!(positions.iter().map(|at| at.partition).collect::<Vec<_>>(), [1, 0, 1]);
    let read = stage.shows(&output, 2, &["A", "B", "C"]).await;
    assert!(positions.iter().all(|position| read.iter().any(|record| record.position == *position)));
    let next = stage.committed(&group, &partition).await.expect("offsets moved");
    assert!(next > member.records[2].position.offset);
}

async fn parts(stage: &mut Stage) {
    let (input, output) = (stage.topic(2).await, stage.topic(1).await);
    let partition = TopicPartition::new(Arc::clone(&input), 1);
    let result = TopicPartition::new(Arc::clone(&output), 0);
    let group = stage.name("group");
    stage.append(&partition, &["a"]).await;
    let mut member = stage.member(&group, &[input]).await;
    member.until("the record", |member| member.records.len() == 1).await;

    committed(member.commit(Vec::new(), Vec::new()).await);
    committed(member.commit(vec![keyed(&result, "alone")], Vec::new()).await);
    assert_eq!(stage.committed(&group, &partition).await, None);
    stage.shows(&output, 1, &["alone"]).await;
    committed(member.commit(Vec::new(), member.offsets(Some(&partition))).await);
    assert_eq!(stage.committed(&group, &partition).await, Some(member.owned[&partition].1));
    // The same offset again is no step back.
    committed(member.commit(Vec::new(), member.offsets(Some(&partition))).await);
}

async fn failed(stage: &mut Stage) {
    let (input, output) = (stage.topic(1).await, stage.topic(1).await);
    let partition = TopicPartition::new(Arc::clone(&input), 0);
    let result = TopicPartition::new(Arc::clone(&output), 0);
    let group = stage.name("group");
    let offsets = stage.append(&partition, &["a", "b", "c"]).await;
    let mut member = stage.member(&group, &[input]).await;
    member.until("the records", |member| member.records.len() == 3).await;
    let (epoch, _) = member.owned[&partition];
    let mut first = member.offsets(None);
    first[0].next_offset = offsets[0] + 1;
    committed(member.commit(vec![keyed(&result, "A")], first).await);

    let impossible = keyed(&TopicPartition::new(Arc::clone(&output), 99), "nowhere");
    let commit = member.commit(vec![keyed(&result, "B"), impossible], member.offsets(None)).await;
    assert!(matches!(&commit, Commit::Aborted { reason: AbortReason::Failed(_) }), "{commit:?}");
    // What was to follow must not: it would leave a hole where the failed one was.
    let follower = rewound(member.commit(vec![keyed(&result, "C")], member.offsets(None)).await);
    assert_eq!(follower, std::slice::from_ref(&partition));
    stage.shows(&output, 1, &["A"]).await;
    assert_eq!(stage.committed(&group, &partition).await, Some(offsets[0] + 1));

    // The rewind: revoked, assigned from the committed offset under a new epoch, the rest once more.
    member.records.clear();
    member.until("a revocation", |member| member.owned.is_empty()).await;
    member.until("the same records again", |member| member.records.len() == 2).await;
    assert_eq!(values(&member.records), ["b", "c"]);
    assert!(member.owned[&partition].0 > epoch);
    // Also once it has been given again.
    let mut older = member.offsets(None);
    older[0].epoch = epoch;
    assert_eq!(rewound(member.commit(vec![keyed(&result, "D")], older).await), [partition]);
    let positions = committed(member.commit(vec![keyed(&result, "BC")], member.offsets(None)).await);
    assert_eq!(positions.len(), 1);
    stage.shows(&output, 1, &["A", "BC"]).await;
}

async fn stale_epoch(stage: &mut Stage) {
    let (input, output) = (stage.topic(2).await, stage.topic(1).await);
    let result = TopicPartition::new(Arc::clone(&output), 0);
    let group = stage.name("group");
    for index in 0..2 {
        stage.append(&TopicPartition::new(Arc::clone(&input), index), &["x", "y"]).await;
    }
    let mut first = stage.member(&group, &[Arc::clone(&input)]).await;
    first.until("all records", |member| member.records.len() == 4).await;
    let offsets = first.offsets(None);
    assert_eq!(offsets.len(), 2);

    let mut second = stage.member(&group, &[input]).await;
    second.until("one partition moves", |member| member.owned.len() == 1).await;
    let moved = second.owned.keys().next().expect("it owns one").clone();
    // The first has not been told yet: its publisher still believes.
    let refused = stale(first.commit(vec![keyed(&result, "zombie")], offsets.clone()).await);
    assert_eq!(refused, std::slice::from_ref(&moved));
    assert_eq!(values(&stage.all(&output, 1).await), Vec::<String>::new());
    for offset in &offsets {
        assert_eq!(stage.committed(&group, &offset.partition).await, None, "nothing of it is written");
    }
    // The rest stands: no rewind, the same epoch.
    let kept: Vec<_> = offsets.into_iter().filter(|offset| offset.partition != moved).collect();
    committed(first.commit(vec![keyed(&result, "owner")], kept).await);
    first.until("it is told", |member| member.owned.len() == 1).await;
    assert_eq!(first.records.len(), 4, "what it keeps is not given again");
    // An epoch that never was is refused as well.
    let mut invented = second.offsets(None);
    invented[0].epoch = AssignmentEpoch(u64::MAX);
    assert_eq!(stale(second.commit(vec![keyed(&result, "zombie")], invented).await), [moved]);
    second.until("its records", |member| member.records.len() == 2).await;
    committed(second.commit(vec![keyed(&result, "new owner")], second.offsets(None)).await);
    stage.shows(&output, 1, &["owner", "new owner"]).await;
}

async fn left(stage: &mut Stage) {
    let (input, output) = (stage.topic(1).await, stage.topic(1).await);
    let partition = TopicPartition::new(Arc::clone(&input), 0);
    let result = TopicPartition::new(Arc::clone(&output), 0);
    let group = stage.name("group");
    stage.append(&partition, &["a"]).await;
    let mut member = stage.member(&group, &[input]).await;
    member.until("the record", |member| member.records.len() == 1).await;
    let (offsets, committer) = (member.offsets(None), Arc::clone(&member.committer));
    stage.soon("leave", member.member.leave()).await.expect("members can leave");
    let late = crate::member::Transaction { records: vec![keyed(&result, "late")], offsets };
    let refused = stale(stage.soon("an answer", committer.commit(late)).await);
    assert_eq!(refused, std::slice::from_ref(&partition));
    assert_eq!(stage.all(&output, 1).await, []);
    assert_eq!(stage.committed(&group, &partition).await, None);
}

async fn fenced(stage: &mut Stage) {
    let (input, output) = (stage.topic(1).await, stage.topic(1).await);
    let partition = TopicPartition::new(Arc::clone(&input), 0);
    let result = TopicPartition::new(Arc::clone(&output), 0);
    let (group, slot) = (stage.name("group"), stage.name("slot"));
    stage.append(&partition, &["a", "b"]).await;
    let mut older = stage.member_in_slot(&group, &slot, &[Arc::clone(&input)]).await;
    older.until("the records", |member| member.records.len() == 2).await;

    let mut newer = stage.member_in_slot(&group, &slot, &[input]).await;
    for offsets in [older.offsets(None), Vec::new()] {
        let commit = older.commit(vec![keyed(&result, "zombie")], offsets).await;
        assert!(matches!(commit, Commit::Fenced { .. }), "{commit:?}");
    }
    let told = async {
        loop {
            if let Err(error) = older.step().await {
                return error;
            }
        }
    };
    let error = stage.soon("the older one is told", told).await;
    assert!(matches!(&error, StreamError::Fenced { slot: named, .. } if **named == *slot), "{error:?}");
    drop(older);
    newer.until("the newer one takes over", |member| member.records.len() == 2).await;
    committed(newer.commit(vec![keyed(&result, "heir")], newer.offsets(None)).await);
    stage.shows(&output, 1, &["heir"]).await;
    assert_eq!(stage.committed(&group, &partition).await, Some(newer.owned[&partition].1));
}

async fn gaps(stage: &mut Stage) {
    let (input, output) = (stage.topic(1).await, stage.topic(1).await);
    let result = TopicPartition::new(Arc::clone(&output), 0);
    let group = stage.name("group");
    let mut member = stage.member(&group, &[input]).await;
    member.until("an assignment", |member| member.owned.len() == 1).await;
    // Markers of transactions, and aborted records between them, occupy offsets where the log has such.
    for round in 0..3 {
        committed(member.commit(vec![keyed(&result, &format!("kept {round}"))], Vec::new()).await);
        let impossible = keyed(&TopicPartition::new(Arc::clone(&output), 99), "nowhere");
        let commit = member.commit(vec![keyed(&result, "gone"), impossible], Vec::new()).await;
        assert!(matches!(&commit, Commit::Aborted { .. }), "{commit:?}");
        member.until("the rewind", |member| member.owned.is_empty()).await;
        member.until("the rewind's end", |member| member.owned.len() == 1).await;
    }
    stage.shows(&output, 1, &["kept 0", "kept 1", "kept 2"]).await;
    let log = stage.log();
    let high = log.watermarks(&result).await.expect("watermarks").high;
    let mut reader =
        log.read(vec![(result.clone(), 0)], crate::log::ReadEnd::Watermark).await.expect("reads work");
    let (mut read, mut next_offset) = (Vec::new(), 0);
    while let Some(batch) = stage.soon("read", reader.next()).await.expect("reads work") {
        assert!(batch.next_offset > next_offset);
        next_offset = batch.next_offset;
        read.extend(batch.records);
    }
    assert_eq!(values(&read), ["kept 0", "kept 1", "kept 2"]);
    assert_eq!(next_offset, high, "a reader at the end is not behind");

    // A group reads over them just the same.
    let readers = stage.name("readers");
    let mut other = stage.member(&readers, &[output]).await;
    other.until("three records", |member| member.records.len() == 3).await;
    assert_eq!(values(&other.records), ["kept 0", "kept 1", "kept 2"]);
}
