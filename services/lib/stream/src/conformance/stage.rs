//! What the cases are written with.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::Subject;
use crate::error::StreamError;
use crate::log::{Log, ReadEnd, Reader, TopicPolicy, TopicSpec};
use crate::member::{
    AbortReason, AssignmentEpoch, Commit, CommitOffset, Committer, FetchBounds, Member, MemberEvent,
    Membership, StartAt, Transaction,
};
use crate::record::{NewRecord, Record, TopicPartition};

/// A subject, and names that nobody else uses.
pub(crate) struct Stage {
    pub(crate) subject: Box<dyn Subject>,
    prefix: String,
    made: u32,
}

impl Stage {
    pub(crate) fn new(subject: Box<dyn Subject>, case: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = format!("conformance.{case}.{}.{}", std::process::id(), now.as_nanos());
        Self { subject, prefix, made: 0 }
    }

    /// A name of this run.
    pub(crate) fn name(&mut self, purpose: &str) -> Arc<str> {
        self.made += 1;
        format!("{}.{}{purpose}", self.prefix, self.made).into()
    }

    /// Whether this is a name of this run.
    pub(crate) fn is_ours(&self, name: &str) -> bool {
        name.starts_with(&self.prefix)
    }

    pub(crate) fn log(&self) -> Arc<dyn Log> {
        self.subject.log()
    }

    /// A new topic.
    pub(crate) async fn topic(&mut self, partitions: i32) -> Arc<str> {
        let name = self.name("topic");
        let policy = TopicPolicy::delete_after(Duration::from_hours(24));
        let spec = TopicSpec { name: Arc::clone(&name), partitions, policy };
        self.log().create_topics(&[spec]).await.expect("topics can be created");
        name
    }

    /// This future's value, before the deadline.
    pub(crate) async fn soon<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        match tokio::time::timeout(self.subject.deadline(), future).await {
            Ok(value) => value,
            Err(_) => panic!("{what}: not within {:?}", self.subject.deadline()),
        }
    }

    /// A member of a group, with a slot of its own.
    pub(crate) async fn member(&mut self, group: &Arc<str>, topics: &[Arc<str>]) -> Watched {
        let slot = self.name("slot");
        self.member_in_slot(group, &slot, topics).await
    }

    pub(crate) async fn member_in_slot(
        &self,
        group: &Arc<str>,
        slot: &Arc<str>,
        topics: &[Arc<str>],
    ) -> Watched {
        let membership = Membership {
            group: Arc::clone(group),
            slot: Arc::clone(slot),
            topics: topics.to_vec(),
            start: StartAt::Earliest,
            fetch: FetchBounds { records_max: 7, bytes_max: 64 * 1024 },
            session_timeout: None,
        };
        let member = self.soon("join", self.log().join(membership)).await.expect("members can join");
        Watched {
            committer: member.committer(),
            member,
            owned: BTreeMap::new(),
            last_epochs: BTreeMap::new(),
            records: Vec::new(),
            deadline: self.subject.deadline(),
        }
    }

    /// Appends values to one partition, with the value as key too.
    pub(crate) async fn append(&self, partition: &TopicPartition, values: &[&str]) -> Vec<i64> {
        let records = values.iter().map(|value| keyed(partition, value)).collect();
        let positions = self.soon("append", self.log().append(records)).await.expect("appends work");
        positions.into_iter().map(|position| position.offset).collect()
    }

    /// All visible records of a topic, partition after partition.
    pub(crate) async fn all(&self, topic: &Arc<str>, partitions: i32) -> Vec<Record> {
        let from = (0..partitions).map(|index| (TopicPartition::new(Arc::clone(topic), index), 0)).collect();
        let mut reader = self.log().read(from, ReadEnd::Watermark).await.expect("reads work");
        let mut records = self.drain(&mut *reader).await;
        records.sort_by(|a, b| a.position.cmp(&b.position));
        records
    }

    /// The visible values of a topic are these: now, or soon where the subject shows a commit a moment after it.
    pub(crate) async fn shows(&self, topic: &Arc<str>, partitions: i32, expected: &[&str]) -> Vec<Record> {
        let began = Instant::now();
        loop {
            let read = self.all(topic, partitions).await;
            let is_last = self.subject.shows_at_once() || began.elapsed() > self.subject.deadline();
            if is_last || values(&read) == expected {
                assert_eq!(values(&read), expected);
                return read;
            }
        }
    }

    /// Everything up to the watermark.
    pub(crate) async fn drain(&self, reader: &mut dyn Reader) -> Vec<Record> {
        let mut records = Vec::new();
        while let Some(batch) = self.soon("read", reader.next()).await.expect("reads work") {
            records.extend(batch.records);
        }
        records
    }

    pub(crate) async fn committed(&self, group: &str, partition: &TopicPartition) -> Option<i64> {
        let asked = std::slice::from_ref(partition);
        self.soon("committed", self.log().committed(group, asked)).await.expect("offsets can be asked")[0]
    }
}

/// A record bound to a partition, its value its key.
pub(crate) fn keyed(partition: &TopicPartition, value: &str) -> NewRecord {
    NewRecord::keyed(Arc::clone(&partition.topic), value.to_owned(), value.to_owned())
        .in_partition(partition.partition)
}

/// The values as text.
pub(crate) fn values(records: &[Record]) -> Vec<String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    records.iter().map(|record| record.value.as_ref().map_or_else(String::new, text)).collect()
}

/// A member whose every event is checked against the trait's rules.
pub(crate) struct Watched {
    pub(crate) member: Box<dyn Member>,
    pub(crate) committer: Arc<dyn Committer>,
    /// What it owns: the epoch, and the offset below which it has everything.
    pub(crate) owned: BTreeMap<TopicPartition, (AssignmentEpoch, i64)>,
    last_epochs: BTreeMap<TopicPartition, AssignmentEpoch>,
    /// What it was given, in order.
    pub(crate) records: Vec<Record>,
    deadline: Duration,
}

impl Watched {
    /// The next event, applied and checked.
    pub(crate) async fn step(&mut self) -> Result<MemberEvent, StreamError> {
        let event = self.member.next().await?;
        match &event {
            MemberEvent::Assigned(assignments) => {
                assert!(!assignments.is_empty(), "an assignment names partitions");
                for new in assignments {
                    let before = self.last_epochs.insert(new.partition.clone(), new.epoch);
                    assert!(before.is_none_or(|before| before < new.epoch), "epochs grow: {event:?}");
                    let known = self.owned.insert(new.partition.clone(), (new.epoch, new.next_offset));
                    assert_eq!(known, None, "assigned what it owns already: {event:?}");
                }
            }
            MemberEvent::Revoked { partitions, lost } => {
                assert!(!partitions.is_empty(), "a revocation names partitions");
                for partition in partitions {
                    assert!(
                        self.owned.remove(partition).is_some() || *lost,
                        "revoked what it does not own: {event:?}"
                    );
                }
            }
            MemberEvent::Records { partition, epoch, records } => {
                let (owned_epoch, next_offset) =
                    self.owned.get_mut(partition).expect("records of owned partitions");
                assert_eq!(owned_epoch, epoch, "records carry the epoch of their assignment");
                assert!(!records.is_empty(), "records are at least one");
                for record in records {
                    assert_eq!(record.position.topic_partition(), *partition);
                    assert!(record.position.offset >= *next_offset, "in order, and none twice");
                    *next_offset = record.position.offset + 1;
                }
                self.records.extend(records.iter().cloned());
            }
        }
        Ok(event)
    }

    /// Takes events until this is so.
    pub(crate) async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = self.deadline;
        let work = async {
            while !done(self) {
                self.step().await.expect("members go on");
            }
        };
        assert!(tokio::time::timeout(deadline, work).await.is_ok(), "{what}: not within {deadline:?}");
    }

    /// The offsets of everything it was given, or of these partitions only.
    pub(crate) fn offsets(&self, only: Option<&TopicPartition>) -> Vec<CommitOffset> {
        let wanted = self.owned.iter().filter(|(partition, _)| only.is_none_or(|only| only == *partition));
        wanted
            .map(|(partition, (epoch, next_offset))| CommitOffset {
                partition: partition.clone(),
                epoch: *epoch,
                next_offset: *next_offset,
            })
            .collect()
    }

    pub(crate) async fn commit(&self, records: Vec<NewRecord>, offsets: Vec<CommitOffset>) -> Commit {
        let commit = self.committer.commit(Transaction { records, offsets });
        match tokio::time::timeout(self.deadline, commit).await {
            Ok(commit) => commit,
            Err(_) => panic!("a commit is answered within {:?}", self.deadline),
        }
    }
}

/// The positions of a commit that must have worked.
pub(crate) fn committed(commit: Commit) -> Vec<crate::record::Position> {
    match commit {
        Commit::Committed { positions } => positions,
        other => panic!("expected a commit, got {other:?}"),
    }
}

/// The partitions of a commit that must have been refused as stale.
pub(crate) fn stale(commit: Commit) -> Vec<TopicPartition> {
    match commit {
        Commit::Aborted { reason: AbortReason::StaleEpoch { partitions } } => partitions,
        other => panic!("expected a refusal for stale epochs, got {other:?}"),
    }
}

/// The partitions of a commit that must have been refused because they were sent back.
pub(crate) fn rewound(commit: Commit) -> Vec<TopicPartition> {
    match commit {
        Commit::Aborted { reason: AbortReason::Rewound { partitions } } => partitions,
        other => panic!("expected a refusal after a rewind, got {other:?}"),
    }
}
