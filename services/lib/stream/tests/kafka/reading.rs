//! Reading over what no reader sees: markers, and records of transactions that were given up.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use stream::{Log, ReadEnd, TopicPartition};
use testbed::Kafka;

use super::support::{DEADLINE, all, append, connect, name, settings, soon, topic};

/// A transaction of somebody else, to its end or not.
fn transaction(bootstrap: &str, topic: &str, id: &str, commits: bool) {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", bootstrap).set("transactional.id", id);
    let producer: BaseProducer = client.create().unwrap();
    producer.init_transactions(DEADLINE).unwrap();
    producer.begin_transaction().unwrap();
    for _ in 0..3 {
        producer.send(BaseRecord::<str, str>::to(topic).partition(0).payload("theirs")).unwrap();
    }
    producer.flush(DEADLINE).unwrap();
    if commits {
        producer.commit_transaction(DEADLINE).unwrap();
    } else {
        producer.abort_transaction(DEADLINE).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_at_the_end_is_not_behind() {
    let bootstrap = Kafka::shared().bootstrap();
    let (log, _) = connect(settings(&bootstrap)).await;
    let topic = topic(&log, "gaps", 1).await;
    let place = TopicPartition::new(Arc::clone(&topic), 0);
    append(&log, &topic, 2).await;
    let mut tail = log.read(vec![(place.clone(), 0)], ReadEnd::Tail).await.unwrap();
    let (mut seen, mut next_offset) = (0, 0);
    for (round, commits) in [(0, false), (1, true), (2, false)] {
        let (address, named, id) = (bootstrap.clone(), Arc::clone(&topic), name("somebody"));
        tokio::task::spawn_blocking(move || transaction(&address, &named, &id, commits)).await.unwrap();
        // Two of ours, and three of theirs where they committed; then a marker, which nobody sees.
        let wanted = if round == 0 { 2 } else { 5 };
        let stable = || async {
            let high = log.watermarks(&place).await.unwrap().high;
            (high == 2 + (round + 1) * 4).then_some(high)
        };
        let high = testbed::until_async("the marker is written", DEADLINE, stable).await;
        while next_offset < high {
            let batch = soon("the tail moves on", tail.next()).await.unwrap().unwrap();
            assert!(batch.next_offset > next_offset, "it only moves forwards");
            next_offset = batch.next_offset;
            seen += batch.records.len();
        }
        assert_eq!((seen, next_offset), (wanted, high));
    }
    assert_eq!(all(&log, &topic, 1).await.len(), 5);
    // A read to the watermark moves over the gap at the end too.
    let mut reader = log.read(vec![(place.clone(), 0)], ReadEnd::Watermark).await.unwrap();
    let mut last = 0;
    while let Some(batch) = soon("read", reader.next()).await.unwrap() {
        last = batch.next_offset;
    }
    assert_eq!(last, log.watermarks(&place).await.unwrap().high);
    // And the tail still reads.
    append(&log, &topic, 1).await;
    let batch = tokio::time::timeout(Duration::from_secs(20), tail.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(batch.records.len(), 1);
}

/// An open transaction holds the stable end back, and nobody reads beyond it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_is_the_end() {
    let bootstrap = Kafka::shared().bootstrap();
    let (log, _) = connect(settings(&bootstrap)).await;
    let topic = topic(&log, "open", 1).await;
    let place = TopicPartition::new(Arc::clone(&topic), 0);
    append(&log, &topic, 2).await;
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &bootstrap).set("transactional.id", &*name("open"));
    let producer: BaseProducer = client.create().unwrap();
    let (begun, named) = (Arc::new(producer), Arc::clone(&topic));
    let theirs = Arc::clone(&begun);
    let begin = move || {
        theirs.init_transactions(DEADLINE).unwrap();
        theirs.begin_transaction().unwrap();
        theirs.send(BaseRecord::<str, str>::to(&named).partition(0).payload("open")).unwrap();
        theirs.flush(DEADLINE).unwrap();
    };
    tokio::task::spawn_blocking(begin).await.unwrap();
    append(&log, &topic, 1).await;
    assert_eq!(log.watermarks(&place).await.unwrap().high, 2);
    assert_eq!(all(&log, &topic, 1).await.len(), 2);
    tokio::task::spawn_blocking(move || begun.commit_transaction(DEADLINE).unwrap()).await.unwrap();
    let shown = || async { (all(&log, &topic, 1).await.len() == 4).then_some(()) };
    testbed::until_async("it can be seen", DEADLINE, shown).await;
}
