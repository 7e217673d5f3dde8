//! Without transactions; and what is told of the log itself.

use std::sync::Arc;

use stream::kafka::{Delivery, KafkaSettings};
use stream::{AbortReason, Commit, Log, NewRecord, TopicPartition};
use testbed::Kafka;

use super::proxy::Proxy;
use super::support::{append, commit, connect, membership, name, records, settings, topic};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_once_commits_offsets_after_records() {
    let at_least_once =
        KafkaSettings { delivery: Delivery::AtLeastOnce, ..settings(&Kafka::shared().bootstrap()) };
    let (log, _) = connect(at_least_once).await;
    let (input, output) = (topic(&log, "input", 1).await, topic(&log, "output", 1).await);
    let (group, slot) = (name("group"), name("slot"));
    append(&log, &input, 20).await;
    let topics = [Arc::clone(&input)];
    let mut member = log.join(membership(&group, &slot, &topics)).await.unwrap();
    let (inputs, offsets) = records(&mut *member, 20).await;
    let answer = commit(&*member.committer(), &output, &inputs, &offsets).await;
    let Commit::Committed { positions } = answer else { panic!("{answer:?}") };
    assert_eq!(positions.len(), 20);
    let place = TopicPartition::new(Arc::clone(&output), 0);
    // No marker follows the records: these were no transaction.
    assert_eq!(log.watermarks(&place).await.unwrap().high, 20);
    let input_place = TopicPartition::new(Arc::clone(&input), 0);
    let committed = log.committed(&group, std::slice::from_ref(&input_place)).await.unwrap();
    assert_eq!(committed, [Some(offsets[0].next_offset)]);

    // What cannot be written takes the offsets with it, and the member begins anew from what is committed.
    append(&log, &input, 1).await;
    let (_, more) = records(&mut *member, 1).await;
    let impossible = NewRecord::keyed(Arc::clone(&output), "k", "v").in_partition(7);
    let transaction = stream::Transaction { records: vec![impossible], offsets: more.clone() };
    let answer = member.committer().commit(transaction).await;
    assert!(matches!(&answer, Commit::Aborted { reason: AbortReason::Failed(_) }), "{answer:?}");
    let (again, offsets) = records(&mut *member, 1).await;
    assert_eq!(again[0].position.offset + 1, more[0].next_offset);
    assert!(offsets[0].epoch > more[0].epoch);
}

/// A broker without transactions gives none, or refuses to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_once_asks_for_no_producer_id() {
    let (proxy, _kafka) = Proxy::before_a_broker();
    let at_least_once = KafkaSettings { delivery: Delivery::AtLeastOnce, ..settings(&proxy.address()) };
    let (log, _) = connect(at_least_once).await;
    let (input, output) = (topic(&log, "input", 1).await, topic(&log, "output", 1).await);
    append(&log, &input, 20).await;
    let membership = membership(&name("group"), &name("slot"), std::slice::from_ref(&input));
    let mut member = log.join(membership).await.unwrap();
    let (inputs, offsets) = records(&mut *member, 20).await;
    let answer = commit(&*member.committer(), &output, &inputs, &offsets).await;
    assert!(matches!(&answer, Commit::Committed { .. }), "{answer:?}");
    assert_eq!(proxy.starts(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_log_says_so_and_leaves_its_groups() {
    let (log, _) = connect(settings(&Kafka::shared().bootstrap())).await;
    let input = topic(&log, "input", 1).await;
    let (group, slot) = (name("group"), name("slot"));
    let topics = [Arc::clone(&input)];
    let mut member = log.join(membership(&group, &slot, &topics)).await.unwrap();
    super::support::assigned(&mut *member).await;
    let closing = log.clone();
    tokio::task::spawn_blocking(move || closing.close()).await.unwrap();
    let error = member.next().await.unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
    assert!(log.topics().await.is_err());
    assert!(log.append(vec![NewRecord::keyed(input, "k", "v")]).await.is_err());
    // The group has heard it: the next one needs not wait for a session to end.
    let (other, _) = connect(settings(&Kafka::shared().bootstrap())).await;
    let began = std::time::Instant::now();
    let mut heir = other.join(membership(&group, &name("slot"), &topics)).await.unwrap();
    super::support::assigned(&mut *heir).await;
    assert!(began.elapsed() < std::time::Duration::from_secs(6), "{:?}", began.elapsed());
}
