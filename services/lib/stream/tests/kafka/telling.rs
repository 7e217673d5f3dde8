//! Metrics tell the truth: where the right number is known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Registry;
use stream::kafka::{GroupProtocol, KafkaSettings};
use stream::{AbortReason, Commit, Log, NewRecord, Transaction};
use testbed::Kafka;

use super::proxy::{Hold, Proxy};
use super::support::{
    append, assigned, commit, connect, membership, metric, name, records, settings, soon, topic,
};

const REBALANCES: &str = "touchstone_stream_rebalances_total";

/// How many transactions were timed, and their seconds in all.
fn timed(registry: &Registry) -> (u64, f64) {
    let families = registry.gather();
    let name = "touchstone_stream_transaction_duration_seconds";
    let family = families.iter().find(|family| family.name() == name).expect("the metric is there");
    let histogram = family.get_metric()[0].get_histogram();
    (histogram.get_sample_count(), histogram.get_sample_sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_transaction_is_counted_by_its_result_and_timed() {
    let (proxy, _kafka) = Proxy::before_a_broker();
    let (log, registry) = connect(settings(&proxy.address())).await;
    let (input, output) = (topic(&log, "input", 1).await, topic(&log, "output", 1).await);
    let mut member =
        log.join(membership(&name("group"), &name("slot"), std::slice::from_ref(&input))).await.unwrap();
    let committer = member.committer();
    let mut seconds = Duration::ZERO;

    // Three are committed, and the third takes two seconds: the broker's answer is held back.
    let late = Duration::from_secs(2);
    for nth in 0..3 {
        append(&log, &input, 2).await;
        let (inputs, offsets) = records(&mut *member, 2).await;
        if nth == 2 {
            proxy.arm(Hold::Answer, late);
        }
        let began = Instant::now();
        let answer = commit(&*committer, &output, &inputs, &offsets).await;
        seconds += began.elapsed();
        assert!(matches!(&answer, Commit::Committed { .. }), "{answer:?}");
    }
    // One cannot be written, and the one after it is too late.
    append(&log, &input, 1).await;
    let (inputs, offsets) = records(&mut *member, 1).await;
    let impossible = NewRecord::keyed(Arc::clone(&output), "k", "v").in_partition(7);
    let began = Instant::now();
    let transaction = Transaction { records: vec![impossible], offsets: offsets.clone() };
    let answer = soon("an answer", committer.commit(transaction)).await;
    assert!(matches!(&answer, Commit::Aborted { reason: AbortReason::Failed(_) }), "{answer:?}");
    let answer = commit(&*committer, &output, &inputs, &offsets).await;
    assert!(matches!(&answer, Commit::Aborted { reason: AbortReason::Rewound { .. } }), "{answer:?}");
    seconds += began.elapsed();

    let counted = ["committed", "aborted", "rewound", "stale", "fenced", "unknown"]
        .map(|result| metric(&registry, "touchstone_stream_transactions_total", Some(result)));
    assert_eq!(counted, [3.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    // Nobody else had anything to do with it.
    assert_eq!(metric(&registry, "touchstone_stream_fenced_writes_total", None), 0.0);
    let (count, sum) = timed(&registry);
    assert_eq!(count, 5);
    assert!((late.as_secs_f64()..=seconds.as_secs_f64()).contains(&sum), "{sum} of {seconds:?}");
    // What an abort sends back comes again, and nothing of it was the group's doing.
    records(&mut *member, 1).await;
    assert_eq!(metric(&registry, REBALANCES, None), 1.0);
}

async fn each_change_is_counted(group_protocol: GroupProtocol) {
    let settings = KafkaSettings { group_protocol, ..settings(&Kafka::shared().bootstrap()) };
    let (log, registry) = connect(settings.clone()).await;
    let input = topic(&log, "input", 2).await;
    let group = name("group");
    let join = |slot| membership(&group, &slot, std::slice::from_ref(&input));
    let mut first = log.join(join(name("slot"))).await.unwrap();
    assert_eq!(assigned(&mut *first).await.len(), 2);
    assert_eq!(metric(&registry, REBALANCES, None), 1.0);

    // Of another process: it takes one of the two away.
    let (other_log, other_registry) = connect(settings).await;
    let mut other = other_log.join(join(name("slot"))).await.unwrap();
    assert_eq!(assigned(&mut *other).await.len(), 1);
    assert_eq!(metric(&registry, REBALANCES, None), 2.0);
    assert_eq!(metric(&other_registry, REBALANCES, None), 1.0);

    // It gives back what it has, by itself; that the first gets it is the group's doing.
    soon("leave", other.leave()).await.unwrap();
    assert_eq!(assigned(&mut *first).await.len(), 1);
    assert_eq!(metric(&registry, REBALANCES, None), 3.0);
    assert_eq!(metric(&other_registry, REBALANCES, None), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_by_the_group_is_counted_with_the_consumer_protocol() {
    each_change_is_counted(GroupProtocol::Consumer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_by_the_group_is_counted_with_the_classic_protocol() {
    each_change_is_counted(GroupProtocol::Classic).await;
}
