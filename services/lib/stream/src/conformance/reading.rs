//! Appending, and reading without a group.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;

use super::Case;
use super::stage::{Stage, values};
use crate::error::StreamError;
use crate::log::ReadEnd;
use crate::partitioner::partition_of_key;
use crate::record::{NewRecord, TopicPartition};

pub(crate) const CASES: &[Case] = &[
    Case { name: "records-come-back-as-they-were", run: |stage| as_they_were(stage).boxed_local() },
    Case { name: "a-key-stays-in-its-partition", run: |stage| keys(stage).boxed_local() },
    Case { name: "a-partition-keeps-its-order", run: |stage| order(stage).boxed_local() },
    Case { name: "reads-start-where-they-are-told", run: |stage| from_offsets(stage).boxed_local() },
    Case { name: "a-tail-wakes-up", run: |stage| tail(stage).boxed_local() },
    Case { name: "an-abandoned-read-loses-nothing", run: |stage| abandoned(stage).boxed_local() },
    Case { name: "watermarks-and-times", run: |stage| watermarks(stage).boxed_local() },
    Case { name: "reopening-keeps-everything", run: |stage| reopened(stage).boxed_local() },
];

async fn as_they_were(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let record = |key: Option<&'static str>, value: Option<&'static str>| NewRecord {
        topic: Arc::clone(&topic),
        partition: Some(0),
        key: key.map(Bytes::from_static_str),
        value: value.map(Bytes::from_static_str),
        headers: Vec::new(),
    };
    let rich = record(Some("key"), Some("value"))
        .with_header("b", "2")
        .with_header("a", "")
        .with_header("b", vec![0u8, 255, 7])
        .with_header("long", vec![b'x'; 300]);
    let written = vec![
        rich,
        record(None, Some("no key")),
        record(Some(""), Some("")),
        record(Some("gone"), None),
        record(None, None),
    ];
    let positions = stage.log().append(written.clone()).await.expect("appends work");
    let read = stage.all(&topic, 1).await;
    assert_eq!(read.len(), written.len());
    for ((read, written), position) in read.iter().zip(&written).zip(&positions) {
        assert_eq!(read.position, *position);
        assert_eq!((&read.key, &read.value), (&written.key, &written.value));
        assert_eq!(read.headers, written.headers);
        assert!(read.timestamp_ms > 0);
    }
    assert_eq!(read[0].header("b"), Some(&Bytes::from_static(&[0, 255, 7])));
}

/// `Bytes::from_static` for text.
trait FromStaticStr {
    fn from_static_str(text: &'static str) -> Bytes;
}

impl FromStaticStr for Bytes {
    fn from_static_str(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }
}

async fn keys(stage: &mut Stage) {
    let topic = stage.topic(5).await;
    let keys: Vec<String> = (0..40).map(|index| format!("tenant|media-{index}")).collect();
    for value in ["first", "second"] {
        let records =
            keys.iter().map(|key| NewRecord::keyed(Arc::clone(&topic), key.clone(), value)).collect();
        let positions = stage.log().append(records).await.expect("appends work");
        for (key, position) in keys.iter().zip(positions) {
            assert_eq!(position.partition, partition_of_key(key.as_bytes(), 5), "{key}");
        }
    }
    let records = stage.all(&topic, 5).await;
    assert_eq!(records.len(), 80);
    let keyless = NewRecord { key: None, ..NewRecord::keyed(topic, "", "anywhere") };
    let placed = stage.log().append(vec![keyless]).await.expect("appends work");
    assert!((0..5).contains(&placed[0].partition));
}

async fn order(stage: &mut Stage) {
    let topic = stage.topic(2).await;
    let log = stage.log();
    let mut written: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for round in 0..20 {
        let mut records = Vec::new();
        for index in 0..30 {
            let (partition, value) = (index % 2, format!("{round}.{index}"));
            records.push(NewRecord::keyed(Arc::clone(&topic), "k", value.clone()).in_partition(partition));
            written.entry(partition).or_default().push(value);
        }
        log.append(records).await.expect("appends work");
    }
    for (partition, expected) in written {
        let from = vec![(TopicPartition::new(Arc::clone(&topic), partition), 0)];
        let mut reader = log.read(from, ReadEnd::Watermark).await.expect("reads work");
        let read = stage.drain(&mut *reader).await;
        assert!(read.is_sorted_by(|a, b| a.position.offset < b.position.offset));
        assert_eq!(values(&read), expected);
    }
}

async fn from_offsets(stage: &mut Stage) {
    let topic = stage.topic(2).await;
    let (first, second) = (TopicPartition::new(Arc::clone(&topic), 0), TopicPartition::new(topic, 1));
    let offsets = stage.append(&first, &["a", "b", "c", "d"]).await;
    stage.append(&second, &["x"]).await;
    let log = stage.log();
    let from = vec![(first.clone(), offsets[2]), (second.clone(), 0)];
    let mut reader = log.read(from, ReadEnd::Watermark).await.expect("reads work");
    // The end is that of the moment the read began.
    stage.append(&first, &["later"]).await;
    let mut read = values(&stage.drain(&mut *reader).await);
    read.sort();
    assert_eq!(read, ["c", "d", "x"]);

    let high = log.watermarks(&first).await.expect("watermarks").high;
    let mut at_end =
        log.read(vec![(first.clone(), high)], ReadEnd::Watermark).await.expect("the end is a place");
    assert_eq!(stage.drain(&mut *at_end).await, []);
    let refused = log.read(vec![(first.clone(), high + 1000)], ReadEnd::Tail).await.err();
    assert!(matches!(refused, Some(StreamError::OffsetOutOfRange { .. })), "{refused:?}");
}

async fn tail(stage: &mut Stage) {
    let topic = stage.topic(2).await;
    let (first, second) = (TopicPartition::new(Arc::clone(&topic), 0), TopicPartition::new(topic, 1));
    let log = stage.log();
    let from = vec![(first.clone(), 0), (second.clone(), 0)];
    let mut reader = log.read(from, ReadEnd::Tail).await.expect("reads work");
    for (partition, value) in [(&first, "one"), (&second, "two"), (&first, "three")] {
        {
            let mut waiting = reader.next();
            assert!(futures::poll!(&mut waiting).is_pending(), "nothing to read yet");
            stage.append(partition, &[value]).await;
            let batch =
                stage.soon("the tail wakes up", waiting).await.expect("reads work").expect("never ends");
            // A batch may only move the position over a gap; then the record follows.
            let records = if batch.records.is_empty() {
                let next = stage.soon("the record follows", reader.next()).await;
                next.expect("reads work").expect("never ends").records
            } else {
                batch.records
            };
            assert_eq!(values(&records), [value]);
        }
    }
}

async fn abandoned(stage: &mut Stage) {
    let topic = stage.topic(1).await;
    let partition = TopicPartition::new(topic, 0);
    let texts: Vec<String> = (0..3000).map(|index| index.to_string()).collect();
    stage.append(&partition, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let log = stage.log();
    let mut reader = log.read(vec![(partition.clone(), 0)], ReadEnd::Watermark).await.expect("reads work");
    let mut read = Vec::new();
    loop {
        // Begun and dropped, begun and awaited, in turn.
        if let Some(batch) = reader.next().now_or_never() {
            match batch.expect("reads work") {
                Some(batch) => read.extend(batch.records),
                None => break,
            }
        }
        match stage.soon("read", reader.next()).await.expect("reads work") {
            Some(batch) => read.extend(batch.records),
            None => break,
        }
    }
    assert_eq!(values(&read), texts);
}

async fn watermarks(stage: &mut Stage) {
    let topic = stage.topic(2).await;
    let partition = TopicPartition::new(topic, 0);
    let log = stage.log();
    let before = log.watermarks(&partition).await.expect("watermarks");
    assert_eq!(before.low, before.high);
    let offsets = stage.append(&partition, &["a", "b", "c"]).await;
    let after = log.watermarks(&partition).await.expect("watermarks");
    assert_eq!(after.low, offsets[0]);
    assert!(after.high > offsets[2]);

    assert_eq!(log.offset_at(&partition, 0).await.expect("times"), offsets[0]);
    assert_eq!(log.offset_at(&partition, i64::MAX / 2).await.expect("times"), after.high);
}

async fn reopened(stage: &mut Stage) {
    let topic = stage.topic(2).await;
    let partition = TopicPartition::new(Arc::clone(&topic), 1);
    let group = stage.name("group");
    stage.append(&partition, &["a", "b", "c"]).await;
    let next_offset = {
        let mut member = stage.member(&group, &[Arc::clone(&topic)]).await;
        member.until("three records", |member| member.records.len() == 3).await;
        super::stage::committed(member.commit(Vec::new(), member.offsets(Some(&partition))).await);
        let (_, next_offset) = member.owned[&partition];
        member.member.leave().await.expect("members can leave");
        next_offset
    };
    // A broker has topics of others too, and they may come and go.
    let ours = async |stage: &Stage| {
        let mut topics = stage.log().topics().await.expect("topics");
        topics.retain(|topic| stage.is_ours(&topic.name));
        topics
    };
    let topics = ours(stage).await;
    assert!(!topics.is_empty());
    let ends = stage.log().watermarks(&partition).await.expect("watermarks");
    stage.subject.reopen().await;
    assert_eq!(ours(stage).await, topics);
    assert_eq!(stage.log().watermarks(&partition).await.expect("watermarks"), ends);
    assert_eq!(values(&stage.all(&topic, 2).await), ["a", "b", "c"]);
    assert_eq!(stage.committed(&group, &partition).await, Some(next_offset));
    stage.append(&partition, &["d"]).await;
    assert_eq!(values(&stage.all(&topic, 2).await), ["a", "b", "c", "d"]);
}
