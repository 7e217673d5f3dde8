//! What the embedded log does beyond the suite of every log.

mod limits;
mod recovery;
mod retention;
mod storm;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use prometheus::Registry;
use tempfile::TempDir;

use super::{LocalConfig, LocalLog};
use crate::log::{Log, ReadEnd, TopicPolicy, TopicSpec};
use crate::member::{
    Assignment, Commit, CommitOffset, FetchBounds, Member, MemberEvent, Membership, StartAt, Transaction,
};
use crate::metrics::Metrics;
use crate::record::{NewRecord, Record, TopicPartition};

/// Nothing here takes this long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(20);

/// A log in a folder of its own, with a clock that stands still until it is set.
struct Fixture {
    folder: TempDir,
    now_ms: Arc<AtomicI64>,
    registry: Registry,
    log: LocalLog,
}

impl Fixture {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut LocalConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now_ms = Arc::new(AtomicI64::new(1_000_000));
        let clock = Arc::clone(&now_ms);
        let mut config = LocalConfig::new(folder.path());
        config.clock = Arc::new(move || clock.load(Ordering::Relaxed));
        change(&mut config);
        let registry = Registry::new();
        let log = LocalLog::open(config, Metrics::register(&registry).unwrap()).unwrap();
        Self { folder, now_ms, registry, log }
    }

    fn reopen(&mut self) {
        self.log.close();
        self.log = LocalLog::open(self.config(), Metrics::register(&Registry::new()).unwrap()).unwrap();
    }

    fn config(&self) -> LocalConfig {
        LocalConfig::new(self.folder.path())
    }

    async fn topic(&self, name: &str, partitions: i32, policy: TopicPolicy) -> Vec<TopicPartition> {
        let spec = TopicSpec { name: name.into(), partitions, policy };
        self.log.create_topics(&[spec]).await.unwrap();
        (0..partitions).map(|index| TopicPartition::new(name, index)).collect()
    }

    async fn append(&self, partition: &TopicPartition, values: &[&str]) -> Vec<i64> {
        let records = values.iter().map(|value| record(partition, value, value)).collect();
        self.log.append(records).await.unwrap().into_iter().map(|position| position.offset).collect()
    }

    async fn all(&self, partition: &TopicPartition) -> Vec<Record> {
        let mut reader = self.log.read(vec![(partition.clone(), 0)], ReadEnd::Watermark).await.unwrap();
        let mut records = Vec::new();
        while let Some(batch) = soon(reader.next()).await.unwrap() {
            records.extend(batch.records);
        }
        records
    }

    async fn values(&self, partition: &TopicPartition) -> Vec<String> {
        let text =
            |record: &Record| String::from_utf8(record.value.clone().unwrap_or_default().to_vec()).unwrap();
        self.all(partition).await.iter().map(text).collect()
    }

    async fn join(&self, slot: &str, topic: &str, start: StartAt) -> Box<dyn Member> {
        let membership = Membership {
            group: "group".into(),
            slot: slot.into(),
            topics: vec![topic.into()],
            start,
            fetch: FetchBounds::default(),
            session_timeout: None,
        };
        self.log.join(membership).await.unwrap()
    }

    fn metric(&self, line: &str) -> f64 {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {line} in\n{text}")).parse().unwrap()
    }
}

fn day() -> TopicPolicy {
    TopicPolicy::delete_after(Duration::from_hours(24))
}

fn record(partition: &TopicPartition, key: &str, value: &str) -> NewRecord {
    NewRecord::keyed(Arc::clone(&partition.topic), key.to_owned(), value.to_owned())
        .in_partition(partition.partition)
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("within the deadline")
}

async fn assigned(member: &mut dyn Member) -> Vec<Assignment> {
    match soon(member.next()).await.unwrap() {
        MemberEvent::Assigned(assignments) => assignments,
        other => panic!("expected an assignment, got {other:?}"),
    }
}

async fn revoked(member: &mut dyn Member) -> Vec<TopicPartition> {
    match soon(member.next()).await.unwrap() {
        MemberEvent::Revoked { partitions, .. } => partitions,
        other => panic!("expected a revocation, got {other:?}"),
    }
}

async fn records(member: &mut dyn Member) -> Vec<Record> {
    match soon(member.next()).await.unwrap() {
        MemberEvent::Records { records, .. } => records,
        other => panic!("expected records, got {other:?}"),
    }
}

fn upto(assignment: &Assignment, next_offset: i64) -> Vec<CommitOffset> {
    vec![CommitOffset { partition: assignment.partition.clone(), epoch: assignment.epoch, next_offset }]
}

async fn commit(member: &dyn Member, records: Vec<NewRecord>, offsets: Vec<CommitOffset>) -> Commit {
    soon(member.committer().commit(Transaction { records, offsets })).await
}
