//! A full disk, a failing one.

use futures::FutureExt;

use super::super::faults::Fault;
use super::*;
use crate::error::{Disposition, StreamError};
use crate::log::LogHealth;
use crate::member::AbortReason;

/// Appends 64 KiB records until there is no room; returns how many were acknowledged, and the refusal.
async fn fill(fixture: &Fixture, partition: &TopicPartition) -> (usize, StreamError) {
    let filler = "f".repeat(64 * 1024);
    for count in 0..10_000 {
        if let Err(error) = fixture.log.append(vec![record(partition, "filler", &filler)]).await {
            return (count, error);
        }
    }
    panic!("the limit was never reached");
}

#[tokio::test]
async fn a_full_disk_is_named_loses_nothing_and_is_left_when_there_is_room() {
    let fixture = Fixture::with(|config| config.bytes_max = Some(6 * 1024 * 1024));
    let input = &fixture.topic("input", 1, TopicPolicy::delete_after(Duration::from_hours(1000))).await[0];
    let output = &fixture.topic("output", 1, TopicPolicy::delete_after(Duration::from_hours(1000))).await[0];
    let filler = &fixture.topic("filler", 1, day()).await[0];
    fixture.append(input, &["a", "b"]).await;
    let mut member = fixture.join("slot", "input", StartAt::Earliest).await;
    let first = assigned(&mut *member).await.remove(0);
    assert_eq!(records(&mut *member).await.len(), 2);
    assert!(matches!(
        commit(&*member, vec![record(output, "a", "A")], upto(&first, 1)).await,
        Commit::Committed { .. }
    ));

    let (filled, error) = fill(&fixture, filler).await;
    let folder = fixture.folder.path().display().to_string();
    assert!(matches!(error, StreamError::StorageFull { .. }), "{error:?}");
    assert_eq!(error.disposition(), Disposition::Pause);
    assert!(error.to_string().contains(&folder), "{error}");
    let mut health = fixture.log.health();
    match &*health.borrow() {
        LogHealth::NotReady { reason } => assert!(reason.contains(&folder), "{reason}"),
        LogHealth::Ready => panic!("a full log is not ready"),
    }

    // A transaction meets the full disk: nothing of it is there, its work is taken back, and not handed out again yet.
    let refused = commit(&*member, vec![record(output, "b", "B")], upto(&first, 2)).await;
    assert!(
        matches!(&refused, Commit::Aborted { reason: AbortReason::Failed(StreamError::StorageFull { .. }) }),
        "{refused:?}"
    );
    assert_eq!(revoked(&mut *member).await, std::slice::from_ref(input));
    assert!(member.next().now_or_never().is_none(), "no work while it could not be committed");
    assert_eq!(fixture.all(filler).await.len(), filled, "what was acknowledged is there, nothing else");
    assert_eq!(fixture.values(output).await, ["A"]);

    // Room: the filler's day is over.
    let later_ms = fixture.now_ms.load(Ordering::Relaxed) + 2 * 24 * 60 * 60 * 1000;
    let maintained = fixture.log.maintain(later_ms).await.unwrap();
    assert_eq!(maintained.expired_count, filled as u64);
    soon(health.wait_for(LogHealth::is_ready)).await.unwrap();
    let again = assigned(&mut *member).await.remove(0);
    assert_eq!((again.next_offset, again.epoch > first.epoch), (1, true));
    assert_eq!(records(&mut *member).await.len(), 1);
    assert!(matches!(
        commit(&*member, vec![record(output, "b", "B")], upto(&again, 2)).await,
        Commit::Committed { .. }
    ));
    assert_eq!(fixture.values(output).await, ["A", "B"]);
    assert_eq!(fixture.metric("touchstone_stream_transactions_total{result=\"aborted\"}"), 1.0);
}

#[tokio::test]
async fn a_full_log_opens_and_reads() {
    let mut fixture = Fixture::with(|config| config.bytes_max = Some(2 * 1024 * 1024));
    let filler = fixture.topic("filler", 1, day()).await.remove(0);
    let (filled, _) = fill(&fixture, &filler).await;
    fixture.reopen();
    assert_eq!(fixture.all(&filler).await.len(), filled);
    fixture.append(&filler, &["there is no limit now"]).await;
}

/// A commit fails in its fsync: happened or not, the member starts from what is true, and one effect is visible.
async fn failed_fsync(fault: Fault, happened: bool) {
    let fixture = Fixture::new();
    let input = &fixture.topic("input", 1, day()).await[0];
    let output = &fixture.topic("output", 1, day()).await[0];
    fixture.append(input, &["a", "b"]).await;
    let mut member = fixture.join("slot", "input", StartAt::Earliest).await;
    let first = assigned(&mut *member).await.remove(0);
    assert_eq!(records(&mut *member).await.len(), 2);

    let mut health = fixture.log.health();
    health.mark_unchanged();
    fixture.log.core.shared.faults.set(fault);
    let unknown = commit(&*member, vec![record(output, "a", "A")], upto(&first, 1)).await;
    assert!(matches!(unknown, Commit::Unknown { .. }), "{unknown:?}");
    assert!(health.has_changed().unwrap(), "a log whose file failed is not ready");
    assert_eq!(revoked(&mut *member).await, std::slice::from_ref(input));
    let again = assigned(&mut *member).await.remove(0);
    soon(health.wait_for(LogHealth::is_ready)).await.unwrap();
    assert_eq!(again.next_offset, i64::from(happened));
    let mut offset = again.next_offset;
    for again_record in records(&mut *member).await {
        offset = again_record.position.offset + 1;
        let name = if offset == 1 { "A" } else { "B" };
        let redone = commit(&*member, vec![record(output, "k", name)], upto(&again, offset)).await;
        assert!(matches!(redone, Commit::Committed { .. }), "{redone:?}");
    }
    assert_eq!(offset, 2);
    assert_eq!(fixture.values(output).await, ["A", "B"]);
    assert_eq!(fixture.metric("touchstone_stream_transactions_total{result=\"unknown\"}"), 1.0);
}

#[tokio::test]
async fn a_failed_fsync_whose_commit_is_lost() {
    failed_fsync(Fault::FsyncFailedBefore, false).await;
}

#[tokio::test]
async fn a_failed_fsync_whose_commit_is_there() {
    failed_fsync(Fault::FsyncFailedAfter, true).await;
}

#[tokio::test]
async fn an_append_that_met_a_failed_fsync_says_so_and_the_log_goes_on() {
    let fixture = Fixture::new();
    let partition = &fixture.topic("topic", 1, day()).await[0];
    let mut health = fixture.log.health();
    fixture.log.core.shared.faults.set(Fault::FsyncFailedBefore);
    let error = fixture.log.append(vec![record(partition, "a", "a")]).await.unwrap_err();
    assert!(matches!(error, StreamError::Storage { .. }), "{error:?}");
    soon(health.wait_for(LogHealth::is_ready)).await.unwrap();
    fixture.append(partition, &["b"]).await;
    assert_eq!(fixture.values(partition).await, ["b"]);
}
