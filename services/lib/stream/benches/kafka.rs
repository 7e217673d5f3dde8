//! What transactions cost on Kafka: `cargo bench -p stream --profile dev --bench kafka`, after `.ci/setup --tests`.
//!
//! Each line compares two ways of doing the same work on one broker in this run, so that the ratio says more than
//! the number. The worker's rhythm is kept: inputs arrive, outcomes are collected for 100 ms or until a transaction
//! is full, then committed with their offsets.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Registry;
use stream::kafka::{Delivery, KafkaLog, KafkaSettings};
use stream::{
    Commit, CommitOffset, FetchBounds, Log, Member, MemberEvent, Membership, Metrics, NewRecord, StartAt,
    TopicPolicy, TopicSpec, Transaction,
};
use testbed::Kafka;

/// Inputs of each run.
const INPUTS: usize = 40_000;
/// What one transaction holds at most (as the publish loop's).
const BATCH: usize = 512;
/// What a reference or a verdict weighs on the wire, about.
const VALUE_BYTES: usize = 300;
/// Transactions of the latency line, one every 100 ms.
const PACED: usize = 60;
const PACE: Duration = Duration::from_millis(100);

async fn connect(kafka: &Kafka, delivery: Delivery) -> KafkaLog {
    let settings =
        KafkaSettings { bootstrap_servers: kafka.bootstrap(), delivery, ..KafkaSettings::default() };
    let metrics = Metrics::register(&Registry::new()).unwrap();
    KafkaLog::connect(settings.check().unwrap(), metrics, ops::Failpoints::default()).await.unwrap()
}

fn record(topic: &Arc<str>, number: usize) -> NewRecord {
    NewRecord::keyed(Arc::clone(topic), format!("tenant|{number}"), vec![b'v'; VALUE_BYTES])
        .with_header("content-type", "application/protobuf")
        .with_header("slot", "worker-0")
}

/// One run's topics, with all inputs written and a member that has been assigned its partition.
struct Run {
    log: KafkaLog,
    output: Arc<str>,
    member: Box<dyn Member>,
}

impl Run {
    async fn new(kafka: &Kafka, delivery: Delivery, name: &str, inputs: usize) -> Self {
        let log = connect(kafka, delivery).await;
        let policy = TopicPolicy::delete_after(Duration::from_hours(24));
        let topic = |kind: &str| -> Arc<str> { format!("{kind}-{name}").into() };
        let (input, output) = (topic("input"), topic("output"));
        let spec = |name: &Arc<str>| TopicSpec { name: Arc::clone(name), partitions: 1, policy };
        log.create_topics(&[spec(&input), spec(&output)]).await.unwrap();
        let records = (0..inputs).map(|number| record(&input, number)).collect();
        log.append(records).await.unwrap();
        let membership = Membership {
            group: topic("group"),
            slot: topic("slot"),
            topics: vec![input],
            start: StartAt::Earliest,
            fetch: FetchBounds { records_max: BATCH, bytes_max: 1024 * 1024 },
            session_timeout: None,
        };
        let mut member = log.join(membership).await.unwrap();
        while !matches!(member.next().await.unwrap(), MemberEvent::Assigned(_)) {}
        Self { log, output, member }
    }

    /// The next transaction's content.
    async fn collect(&mut self, records_max: usize) -> (Transaction, usize) {
        loop {
            let MemberEvent::Records { partition, epoch, mut records } = self.member.next().await.unwrap()
            else {
                continue;
            };
            records.truncate(records_max);
            let next_offset = records.last().unwrap().position.offset + 1;
            let outcomes: Vec<_> =
                records.iter().map(|input| record(&self.output, input.position.offset as usize)).collect();
            let offsets = vec![CommitOffset { partition, epoch, next_offset }];
            return (Transaction { records: outcomes, offsets }, records.len());
        }
    }

    /// Records a second, as fast as it goes.
    async fn speed(mut self) -> f64 {
        let committer = self.member.committer();
        let began = Instant::now();
        let mut done = 0;
        while done < INPUTS {
            let (transaction, count) = self.collect(BATCH).await;
            let answer = committer.commit(transaction).await;
            assert!(matches!(answer, Commit::Committed { .. }), "{answer:?}");
            done += count;
        }
        let speed = done as f64 / began.elapsed().as_secs_f64();
        self.member.leave().await.unwrap();
        drop(self.log);
        speed
    }

    /// How long commits take, one of a few records every 100 ms.
    async fn latencies(mut self) -> Vec<Duration> {
        let committer = self.member.committer();
        let mut latencies = Vec::with_capacity(PACED);
        let mut next = tokio::time::interval(PACE);
        while latencies.len() < PACED {
            next.tick().await;
            let (transaction, _) = self.collect(BATCH).await;
            let began = Instant::now();
            let answer = committer.commit(transaction).await;
            assert!(matches!(answer, Commit::Committed { .. }), "{answer:?}");
            latencies.push(began.elapsed());
        }
        self.member.leave().await.unwrap();
        latencies.sort();
        latencies
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1000.0
}

fn line(name: &str, (value, unit): (f64, &str), against: f64, what: &str) {
    let ratio = value / against;
    let text = format!("BENCH {name} {value:.1} {unit} ratio {ratio:.3} against {what}\n");
    std::io::stdout().write_all(text.as_bytes()).unwrap();
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let kafka = tokio::task::spawn_blocking(|| Kafka::builder().start().unwrap()).await.unwrap();
    // A broker's first seconds are slow; and the better of two runs is less the neighbours' doing.
    Run::new(&kafka, Delivery::AtLeastOnce, "warm-up", INPUTS).await.speed().await;
    let (mut exactly, mut at_least) = (0.0f64, 0.0f64);
    for round in 0..2 {
        let run = Run::new(&kafka, Delivery::AtLeastOnce, &format!("at-least-{round}"), INPUTS).await;
        at_least = at_least.max(run.speed().await);
        let run = Run::new(&kafka, Delivery::ExactlyOnce, &format!("exactly-{round}"), INPUTS).await;
        exactly = exactly.max(run.speed().await);
    }
    line("kafka_transactions_of_512", (exactly, "records/s"), at_least, "at least once");

    let paced = Run::new(&kafka, Delivery::AtLeastOnce, "paced-at-least", PACED * BATCH).await;
    let plain = paced.latencies().await;
    let paced = Run::new(&kafka, Delivery::ExactlyOnce, "paced-exactly", PACED * BATCH).await;
    let latencies = paced.latencies().await;
    for percent in [50, 99] {
        let name = format!("kafka_transaction_p{percent}");
        let (own, other) = (percentile(&latencies, percent), percentile(&plain, percent));
        line(&name, (own, "ms"), other, "at least once, 512 records every 100 ms");
    }
    // What a worker notices at its rhythm: time in commits against the 100 ms between them.
    let spent = |latencies: &[Duration]| latencies.iter().sum::<Duration>().as_secs_f64();
    let extra = (spent(&latencies) - spent(&plain)) / PACED as f64 * 1000.0;
    line("kafka_transaction_extra", (extra, "ms"), PACE.as_secs_f64() * 1000.0, "the 100 ms between commits");
}
