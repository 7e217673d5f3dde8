//! Media a second through one worker on a real Kafka: what transactions cost, and the whole way.
//!
//! `cargo bench -p e2e --bench fleet [-- MEDIA]`. One-frame media of 256×256 px, references in the log beforehand, the
//! scripted detector; broker, S3 server, worker and reader share this machine. The clock runs from the first
//! verdicts that a read_committed reader sees to the last; in the line of the whole way, from the first submission to the
//! query's last answer.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its result, and how far it is")]

use std::time::{Duration, Instant};

use e2e::fleet::Fleet;
use stream::{Log, ReadEnd, TopicPartition};

/// At 1,000 media/s ten seconds and more, so that start and end count little.
const MEDIA: usize = 20_000;
const PARTITIONS: usize = 8;
/// The least that counts as quick enough.
const FLOOR: f64 = 1_000.0;
/// Longer than any machine takes.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let media = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(MEDIA);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // There and back: what the machine does meanwhile meets both.
        let mut took = [Duration::ZERO; 2];
        for way in [0, 1, 1, 0] {
            let delivery = ["exactly-once", "at-least-once"][way];
            let round = run(delivery, media).await;
            eprintln!("{delivery}: {:.0} media/s", 1.0 / round.as_secs_f64());
            took[way] += round;
        }
        let way = served(media).await;
        eprintln!("{media} media from the front door to the store in {:.1} s", way.as_secs_f64());
        let rate = media as f64 / way.as_secs_f64();
        println!(
            "BENCH fleet_served {rate:.0} media/s ratio {:.2} against floor 1000 media/s (from the first submission to the \
             last answer of the query, scheduler, worker and query beside Kafka and versitygw)",
            rate / FLOOR
        );
        let [once, least] = took.map(|took| 2.0 / took.as_secs_f64());
        println!(
            "BENCH fleet_log_to_log {once:.0} media/s ratio {:.2} against floor 1000 media/s ({media} one-frame media, one \
             worker, Kafka and versitygw on the same cores)",
            once / FLOOR
        );
        println!(
            "BENCH fleet_transactions {once:.0} media/s ratio {:.3} against at-least-once {least:.0} media/s",
            once / least
        );
    });
}

/// The whole way: from the first submission until the query answers for each of them.
async fn served(media: usize) -> Duration {
    let mut fleet = Fleet::builder().workers(1).partitions(PARTITIONS).start().await;
    fleet.worker(0).wait_ready();
    let began = Instant::now();
    fleet.submit(media).await;
    fleet.settled().await;
    began.elapsed()
}

/// How long one worker takes for each of them once it is at work: its start, and the making of the transactions' own topic
/// on a new broker, are no part of it.
async fn run(delivery: &str, media: usize) -> Duration {
    let mut fleet = Fleet::builder().workers(0).partitions(PARTITIONS).delivery(delivery).start().await;
    fleet.submit(media).await;
    // Who only watches would take a core from whom is measured.
    fleet.query(0).kill();
    let verdicts = fleet.topics().verdicts.clone();
    let from = (0..PARTITIONS as i32).map(|index| (TopicPartition::new(&*verdicts, index), 0)).collect();
    let mut reader = fleet.log().read(from, ReadEnd::Tail).await.expect("the topic is there");
    fleet.add_worker();
    let mut next = async || {
        let batch = tokio::time::timeout(PATIENCE, reader.next()).await.expect("verdicts keep coming");
        batch.expect("the log answers").expect("a tail has no end").records.len()
    };
    let first = next().await;
    let (began, mut seen) = (Instant::now(), first);
    while seen < media {
        seen += next().await;
    }
    let took = began.elapsed();
    assert_eq!(seen, media, "one verdict for each media");
    took.div_f64((media - first) as f64)
}
