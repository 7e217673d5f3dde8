//! Rules, bounds, and what is said when they are broken.

use futures::future::join_all;

use super::*;
use crate::error::{Disposition, StreamError};
use crate::member::AbortReason;

#[tokio::test]
async fn a_newer_schema_is_refused_with_both_numbers() {
    let fixture = Fixture::new();
    fixture.log.close();
    let file = rusqlite::Connection::open(fixture.folder.path().join("log.sqlite")).unwrap();
    file.execute_batch("PRAGMA user_version = 7").unwrap();
    let error = open_error(&fixture);
    assert!(matches!(error, StreamError::NewerSchema { found: 7, known: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("schema 7"), "{error}");
}

#[tokio::test]
async fn other_files_are_not_taken_for_a_log() {
    for content in [&b"this is no database, and long enough to be seen as none".repeat(20)[..], b""] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log.sqlite");
        if content.is_empty() {
            rusqlite::Connection::open(&file).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
        } else {
            std::fs::write(&file, content).unwrap();
        }
        let opened =
            LocalLog::open(LocalConfig::new(folder.path()), Metrics::register(&Registry::new()).unwrap());
        assert!(matches!(opened.err(), Some(StreamError::Corrupt { .. })));
    }
}

#[tokio::test]
async fn a_second_log_in_the_folder_is_refused_until_the_first_is_closed() {
    let fixture = Fixture::new();
    let error = open_error(&fixture);
    assert!(matches!(error, StreamError::Locked { .. }), "{error:?}");
    let late = fixture.log.clone();
    fixture.log.close();
    let second = LocalLog::open(fixture.config(), Metrics::register(&Registry::new()).unwrap()).unwrap();
    assert!(matches!(late.append(Vec::new()).await, Err(StreamError::Closed { .. })));
    assert!(!late.health().borrow().is_ready());
    // The last handle's end closes as well.
    drop(second);
    LocalLog::open(fixture.config(), Metrics::register(&Registry::new()).unwrap()).unwrap();
}

fn open_error(fixture: &Fixture) -> StreamError {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    LocalLog::open(fixture.config(), metrics).err().expect("it cannot be opened")
}

#[tokio::test]
async fn a_member_keeps_the_log_open_and_hears_of_its_end() {
    let fixture = Fixture::new();
    let partition = &fixture.topic("topic", 1, day()).await[0];
    let mut member = fixture.join("slot", "topic", StartAt::Earliest).await;
    assigned(&mut *member).await;
    let waiting = member.next();
    let closing = async { fixture.log.close() };
    let (event, ()) = soon(async { tokio::join!(waiting, closing) }).await;
    assert!(matches!(event, Err(StreamError::Closed { .. })), "{event:?}");
    let commit = commit(&*member, vec![record(partition, "a", "a")], Vec::new()).await;
    assert!(matches!(&commit, Commit::Aborted { .. }), "{commit:?}");
}

#[tokio::test]
async fn records_have_a_size_limit_and_compacted_topics_need_keys() {
    let fixture = Fixture::with(|config| config.record_bytes_max = 100);
    let plain = &fixture.topic("plain", 1, day()).await[0];
    let state = &fixture.topic("state", 1, TopicPolicy::compact()).await[0];
    let large = record(plain, "key", &"v".repeat(98));
    let keyless = NewRecord { key: None, ..record(state, "", "v") };
    for (refused, word) in [(large, "101 bytes"), (keyless, "no key")] {
        let error = fixture.log.append(vec![record(plain, "fine", "fine"), refused]).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Reject);
        assert!(error.to_string().contains(word), "{error}");
    }
    assert_eq!(fixture.all(plain).await, [], "one bad record refuses the call");
}

#[tokio::test]
async fn a_fetch_is_bounded_in_records_and_bytes_but_gives_at_least_one() {
    let fixture = Fixture::new();
    let partition = &fixture.topic("topic", 1, day()).await[0];
    let large = "v".repeat(1000);
    fixture.append(partition, &["a", "b", "c", &large, &large, "d"]).await;
    let membership = Membership {
        group: "group".into(),
        slot: "slot".into(),
        topics: vec!["topic".into()],
        start: StartAt::Earliest,
        fetch: FetchBounds { records_max: 2, bytes_max: 500 },
        session_timeout: None,
    };
    let mut member = fixture.log.join(membership).await.unwrap();
    assigned(&mut *member).await;
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 6 {
        sizes.push(records(&mut *member).await.len());
    }
    assert_eq!(sizes, [2, 1, 1, 1, 1]);
}

#[tokio::test]
async fn offsets_neither_go_back_nor_beyond_the_end() {
    let fixture = Fixture::new();
    let input = &fixture.topic("input", 1, day()).await[0];
    fixture.append(input, &["a", "b", "c"]).await;
    let mut member = fixture.join("slot", "input", StartAt::Earliest).await;
    let mut own = assigned(&mut *member).await.remove(0);
    assert!(matches!(commit(&*member, Vec::new(), upto(&own, 2)).await, Commit::Committed { .. }));
    let twice = [upto(&own, 2), upto(&own, 3)].concat();
    for wrong in [upto(&own, 1), upto(&own, 4), twice] {
        let wrong = wrong.into_iter().map(|offset| CommitOffset { epoch: own.epoch, ..offset }).collect();
        let refused = commit(&*member, vec![record(input, "x", "x")], wrong).await;
        assert!(
            matches!(&refused, Commit::Aborted { reason: AbortReason::Failed(StreamError::Invalid { .. }) }),
            "{refused:?}"
        );
        own = loop {
            if let MemberEvent::Assigned(mut assignments) = soon(member.next()).await.unwrap() {
                break assignments.remove(0);
            }
        };
        assert_eq!(own.next_offset, 2);
    }
    assert_eq!(fixture.all(input).await.len(), 3);
}

#[tokio::test]
async fn starting_at_the_end_survives_a_rewind() {
    let fixture = Fixture::new();
    let input = &fixture.topic("input", 1, day()).await[0];
    fixture.append(input, &["before"]).await;
    let mut member = fixture.join("slot", "input", StartAt::Latest).await;
    assert_eq!(assigned(&mut *member).await[0].next_offset, 1);
    fixture.append(input, &["after"]).await;
    assert_eq!(records(&mut *member).await.len(), 1);
    let impossible = record(&TopicPartition::new("input", 9), "x", "x");
    assert!(matches!(commit(&*member, vec![impossible], Vec::new()).await, Commit::Aborted { .. }));
    revoked(&mut *member).await;
    assert_eq!(assigned(&mut *member).await[0].next_offset, 1, "not the end of now");
    assert_eq!(records(&mut *member).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_are_each_answered_and_lose_nothing() {
    let fixture = Fixture::new();
    let partitions = fixture.topic("topic", 3, day()).await;
    let writes = (0..300).map(|index| {
        let (partition, log) = (&partitions[index % 3], &fixture.log);
        async move { (index, log.append(vec![record(partition, "k", &index.to_string())]).await.unwrap()) }
    });
    for (index, positions) in soon(join_all(writes)).await {
        let from = vec![(positions[0].topic_partition(), positions[0].offset)];
        let mut reader = fixture.log.read(from, ReadEnd::Watermark).await.unwrap();
        let batch = soon(reader.next()).await.unwrap().unwrap();
        assert_eq!(batch.records[0].value.as_deref(), Some(index.to_string().as_bytes()));
    }
    for partition in &partitions {
        assert_eq!(fixture.all(partition).await.len(), 100);
    }
}

#[tokio::test]
async fn metrics_tell_what_happened() {
    let fixture = Fixture::new();
    let input = &fixture.topic("input", 2, day()).await[0];
    fixture.append(input, &["a", "b", "c"]).await;
    let mut first = fixture.join("one", "input", StartAt::Earliest).await;
    let own = assigned(&mut *first).await.remove(0);
    assert!(matches!(commit(&*first, Vec::new(), upto(&own, 1)).await, Commit::Committed { .. }));
    let lags = crate::metrics::lag(&fixture.log, "group", std::slice::from_ref(input)).await.unwrap();
    assert_eq!(lags, [(input.clone(), 2)]);
    // One joined, one partition moved away from it: three changes of a member's partitions.
    let second = fixture.join("two", "input", StartAt::Earliest).await;
    assert_eq!(fixture.metric("touchstone_stream_rebalances_total"), 3.0);
    let moved = Assignment { partition: TopicPartition::new("input", 1), ..own.clone() };
    assert!(matches!(commit(&*first, Vec::new(), upto(&moved, 1)).await, Commit::Aborted { .. }));
    let newer = fixture.join("one", "input", StartAt::Earliest).await;
    assert!(matches!(commit(&*first, Vec::new(), upto(&own, 2)).await, Commit::Fenced { .. }));
    for (result, count) in [("committed", 1.0), ("stale", 1.0), ("fenced", 1.0), ("aborted", 0.0)] {
        let line = format!("touchstone_stream_transactions_total{{result=\"{result}\"}}");
        assert_eq!(fixture.metric(&line), count, "{result}");
    }
    assert_eq!(fixture.metric("touchstone_stream_fenced_writes_total"), 2.0);
    assert_eq!(fixture.metric("touchstone_stream_transaction_duration_seconds_count"), 3.0);
    drop((second, newer));
}
