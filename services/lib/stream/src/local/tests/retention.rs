//! Retention and compaction.

use super::*;

const HOUR_MS: i64 = 60 * 60 * 1000;

#[tokio::test]
async fn records_go_by_age_alone_and_the_low_watermark_moves_up() {
    let mut fixture = Fixture::new();
    let old = fixture.topic("old", 1, day()).await.remove(0);
    let kept = fixture.topic("kept", 1, TopicPolicy::delete_after(Duration::from_hours(100))).await.remove(0);
    let start_ms = fixture.now_ms.load(Ordering::Relaxed);
    // More than one chunk, in two generations half a day apart.
    let many: Vec<String> = (0..5000).map(|index| index.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    fixture.append(&old, &many).await;
    fixture.append(&kept, &["kept"]).await;
    fixture.now_ms.store(start_ms + 12 * HOUR_MS, Ordering::Relaxed);
    fixture.append(&old, &["younger", "youngest"]).await;

    assert_eq!(fixture.log.offset_at(&old, start_ms).await.unwrap(), 0);
    assert_eq!(fixture.log.offset_at(&old, start_ms + 1).await.unwrap(), 5000);
    assert_eq!(fixture.log.offset_at(&old, start_ms + 12 * HOUR_MS + 1).await.unwrap(), 5002);
    assert_eq!(fixture.log.maintain(start_ms + 24 * HOUR_MS).await.unwrap().expired_count, 0);
    let maintained = fixture.log.maintain(start_ms + 24 * HOUR_MS + 1).await.unwrap();
    assert_eq!(maintained.expired_count, 5000);
    let ends = fixture.log.watermarks(&old).await.unwrap();
    assert_eq!((ends.low, ends.high), (5000, 5002));
    assert_eq!(fixture.values(&old).await, ["younger", "youngest"]);
    assert_eq!(fixture.values(&kept).await, ["kept"]);

    // A group that was behind goes on at what is left.
    let mut member = fixture.join("slot", "old", StartAt::Earliest).await;
    assert_eq!(assigned(&mut *member).await[0].next_offset, 5000);
    drop(member);

    fixture.reopen();
    let after = fixture.log.watermarks(&old).await.unwrap();
    assert_eq!(after, ends);
    assert_eq!(fixture.append(&old, &["next"]).await, [5002], "offsets are never used twice");
}

#[tokio::test]
async fn all_records_may_go_and_offsets_go_on() {
    let fixture = Fixture::new();
    let partition = &fixture.topic("topic", 1, day()).await[0];
    fixture.append(partition, &["a", "b"]).await;
    let mut reader = fixture.log.read(vec![(partition.clone(), 0)], ReadEnd::Tail).await.unwrap();
    let late_ms = fixture.now_ms.load(Ordering::Relaxed) + 48 * HOUR_MS;
    assert_eq!(fixture.log.maintain(late_ms).await.unwrap().expired_count, 2);
    // A reader that stood below only moves on.
    let batch = soon(reader.next()).await.unwrap().unwrap();
    assert_eq!((batch.records.len(), batch.next_offset), (0, 2));
    assert_eq!(fixture.append(partition, &["c"]).await, [2]);
    assert_eq!(soon(reader.next()).await.unwrap().unwrap().next_offset, 3);
}

#[tokio::test]
async fn freed_space_goes_back_to_the_file_system() {
    let fixture = Fixture::new();
    let partition = &fixture.topic("topic", 1, day()).await[0];
    let filler = "f".repeat(8 * 1024);
    for _ in 0..20 {
        fixture.append(partition, &vec![filler.as_str(); 100]).await;
    }
    let late_ms = fixture.now_ms.load(Ordering::Relaxed) + 48 * HOUR_MS;
    let maintained = fixture.log.maintain(late_ms).await.unwrap();
    assert_eq!(maintained.expired_count, 2000);
    // 2,000 records of 8 KiB take 16 MiB, all but a part of which is slack now.
    assert!(maintained.freed_bytes > 8 * 1024 * 1024, "{maintained:?}");
}

#[tokio::test]
async fn compaction_keeps_the_last_record_of_each_key() {
    let fixture = Fixture::new();
    let partition = &fixture.topic("state", 1, TopicPolicy::compact()).await[0];
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("b", "2"), ("a", "3")] {
        fixture.log.append(vec![record(partition, key, value)]).await.unwrap();
    }
    let tombstone = NewRecord { value: None, ..record(partition, "c", "") };
    fixture.log.append(vec![tombstone]).await.unwrap();
    let now_ms = fixture.now_ms.load(Ordering::Relaxed);
    let maintained = fixture.log.maintain(now_ms).await.unwrap();
    assert_eq!(maintained.compacted_count, 4);
    let left: Vec<i64> = fixture.all(partition).await.iter().map(|record| record.position.offset).collect();
    assert_eq!(left, [4, 5, 6]);
    assert_eq!(fixture.log.maintain(now_ms).await.unwrap().compacted_count, 0);

    // The tombstone has been seen by everyone after a day; a gap at the end is no lag.
    assert_eq!(fixture.log.maintain(now_ms + 25 * HOUR_MS).await.unwrap().compacted_count, 1);
    let mut reader = fixture.log.read(vec![(partition.clone(), 0)], ReadEnd::Watermark).await.unwrap();
    let mut next_offset = 0;
    while let Some(batch) = soon(reader.next()).await.unwrap() {
        next_offset = batch.next_offset;
    }
    assert_eq!(next_offset, 7);
    assert_eq!(fixture.values(partition).await, ["2", "3"]);
}
