//! The log: what the services need of Kafka, and an embedded log that keeps the same promises.
//!
//! **What it does.** [`Log`] is the one seam between Touchstone and whatever keeps its records: join a
//! consumer group as a [`Member`], commit outcome records and input offsets in one [`Transaction`], append,
//! read without a group, ask for watermarks and committed offsets, administer topics. [`kafka`] is Apache Kafka
//! through librdkafka, [`local`] the embedded implementation, one SQLite file; [`offsets`] tells which finished work
//! may be committed.
//!
//! **In and out.** In: records as bytes, and offsets to commit. Out: records with their positions, changes of
//! ownership ([`MemberEvent`]), and for every transaction one of four answers ([`Commit`]).
//!
//! **What it never does.** It never parses a payload, knows no topic by name, reads no environment, and never
//! says "committed" before the bytes are durable. It never retries a transaction: rewinding and doing the work
//! again is the only repair, and the caller sees it as a revocation followed by an assignment.
//!
//! **Where to start.** `log.rs` for the trait, `member.rs` for membership and commits, then `kafka/mod.rs` or
//! `local/mod.rs`. [`conformance`] is the trait's meaning as tests; every implementation passes it.
//!
//! **Before changing it.** Ownership is protected by epochs and by nothing else: a transaction is checked
//! against them in the same critical section that commits it. Whatever moves a partition must go through the
//! same section, or two owners may both publish one input.

pub mod conformance;
mod error;
pub mod kafka;
pub mod local;
mod log;
mod member;
mod metrics;
pub mod offsets;
mod partitioner;
mod record;
mod start;
mod topics;

pub use error::{Disposition, StreamError};
pub use kafka::DEFAULTS as KAFKA_DEFAULTS;
pub use log::{
    Cleanup, Delivery, Log, LogHealth, ReadBatch, ReadEnd, Reader, TopicDescription, TopicPolicy, TopicSize,
    TopicSpec, Watermarks, missing_topics,
};
pub use member::{
    AbortReason, Assignment, AssignmentEpoch, Commit, CommitOffset, Committer, FetchBounds, Member,
    MemberEvent, Membership, StartAt, Transaction,
};
pub use metrics::{Metrics, lag};
pub use partitioner::{murmur2, partition_of_key};
pub use record::{Header, NewRecord, Position, Record, TopicPartition};
pub use start::at_start;
