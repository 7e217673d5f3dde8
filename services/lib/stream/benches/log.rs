//! How fast the embedded log is on this disk: `cargo bench -p stream --profile dev --bench log`.
//!
//! Each line compares two ways of doing the same work in this run, so that the ratio says more than the number.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use prometheus::Registry;
use stream::local::{LocalConfig, LocalLog, Synchronous};
use stream::{
    Commit, CommitOffset, Committer, FetchBounds, Log, Member, MemberEvent, Membership, Metrics, NewRecord,
    ReadEnd, StartAt, TopicPartition, TopicPolicy, TopicSpec, Transaction,
};
use tempfile::TempDir;

/// How long each measurement runs (chosen: a hundred fsyncs and more).
const SPAN: Duration = Duration::from_millis(1500);
const PARTITIONS: i32 = 4;
/// What a reference or a verdict weighs on the wire, about.
const VALUE_BYTES: usize = 300;

struct Bench {
    _folder: TempDir,
    log: LocalLog,
}

impl Bench {
    async fn new(synchronous: Synchronous) -> Self {
        // Not the system's folder for temporary files: that may be memory, where an fsync costs nothing.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut config = LocalConfig::new(folder.path());
        config.synchronous = synchronous;
        let log = LocalLog::open(config, Metrics::register(&Registry::new()).unwrap()).unwrap();
        let policy = TopicPolicy::delete_after(Duration::from_hours(24));
        let topic = |name: &str| TopicSpec { name: name.into(), partitions: PARTITIONS, policy };
        log.create_topics(&[topic("input"), topic("output")]).await.unwrap();
        Self { _folder: folder, log }
    }

    /// Records a second with this many callers, each appending batches of this size.
    async fn append(&self, callers: usize, batch: usize) -> f64 {
        let began = Instant::now();
        let calls = (0..callers).map(|caller| async move {
            let mut count = 0;
            while began.elapsed() < SPAN {
                let records =
                    (0..batch).map(|index| record("input", caller * 1_000_003 + count + index)).collect();
                count += self.log.append(records).await.unwrap().len();
            }
            count
        });
        let count: usize = join_all(calls).await.into_iter().sum();
        count as f64 / began.elapsed().as_secs_f64()
    }

    /// Records a second with this many members, each committing an output per input in transactions of this size.
    async fn transact(&self, members: usize, batch: usize) -> f64 {
        let mut joined = Vec::new();
        for index in 0..members {
            joined.push(self.log.join(membership(index, batch)).await.unwrap());
        }
        let began = Instant::now();
        let work = joined.iter_mut().map(|member| async move {
            let committer = member.committer();
            let mut count = 0;
            while began.elapsed() < SPAN {
                count += commit_next(&mut **member, &*committer).await;
            }
            count
        });
        let count: usize = join_all(work).await.into_iter().sum();
        let speed = count as f64 / began.elapsed().as_secs_f64();
        for member in joined {
            member.leave().await.unwrap();
        }
        speed
    }

    async fn read(&self) -> f64 {
        let from = (0..PARTITIONS).map(|index| (TopicPartition::new("input", index), 0)).collect();
        let mut reader = self.log.read(from, ReadEnd::Watermark).await.unwrap();
        let began = Instant::now();
        let mut count = 0;
        while let Some(batch) = reader.next().await.unwrap() {
            count += batch.records.len();
        }
        count as f64 / began.elapsed().as_secs_f64()
    }
}

fn record(topic: &'static str, number: usize) -> NewRecord {
    NewRecord::keyed(Arc::from(topic), format!("tenant|{number}"), vec![b'v'; VALUE_BYTES])
        .with_header("content-type", "application/protobuf")
        .with_header("slot", "worker-0")
}

fn membership(index: usize, batch: usize) -> Membership {
    Membership {
        group: "workers".into(),
        slot: format!("worker-{index}").into(),
        topics: vec!["input".into()],
        start: StartAt::Earliest,
        fetch: FetchBounds { records_max: batch, bytes_max: 1024 * 1024 },
        session_timeout: None,
    }
}

async fn commit_next(member: &mut dyn Member, committer: &dyn Committer) -> usize {
    loop {
        let MemberEvent::Records { partition, epoch, records } = member.next().await.unwrap() else {
            continue;
        };
        let next_offset = records.last().unwrap().position.offset + 1;
        let outputs = records.iter().map(|input| record("output", input.position.offset as usize)).collect();
        let offsets = vec![CommitOffset { partition, epoch, next_offset }];
        match committer.commit(Transaction { records: outputs, offsets }).await {
            Commit::Committed { positions } => return positions.len(),
            Commit::Aborted { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn line(name: &str, value: f64, against: f64, what: &str) {
    let ratio = value / against;
    let text = format!("BENCH {name} {value:.0} records/s ratio {ratio:.2} against {what}\n");
    std::io::stdout().write_all(text.as_bytes()).unwrap();
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let full = Bench::new(Synchronous::Full).await;
    let one_by_one = full.append(1, 1).await;
    let together = full.append(64, 1).await;
    line("log_append_64_callers", together, one_by_one, "one caller");
    let batched = full.append(4, 500).await;
    line("log_append_batches_of_500", batched, together, "single records of 64 callers");
    line("log_read", full.read().await, batched, "appending in batches");
    let alone = full.transact(1, 20).await;
    let members = full.transact(4, 20).await;
    line("log_transactions_of_20_4_members", members, alone, "one member");
    let normal = Bench::new(Synchronous::Normal).await;
    let relaxed = normal.append(1, 1).await;
    line("log_append_synchronous_normal", relaxed, one_by_one, "synchronous full");
}
