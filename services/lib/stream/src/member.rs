//! Membership of a consumer group, and transactions.
//!
//! A member is two things with two owners. The [`Member`] belongs to whoever takes work in: it yields records and
//! changes of ownership. Its [`Committer`] belongs to whoever publishes. They meet in the epochs: each assignment
//! of a partition has one, each job carries it, each commit names it, and the log refuses a transaction that names
//! an old one. So a publisher that has not heard of a revocation yet can do no harm.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::StreamError;
use crate::record::{NewRecord, Position, Record, TopicPartition};

/// How to join a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The consumer group: its members share the partitions, its name keeps the committed offsets.
    pub group: Arc<str>,
    /// The member's identity for transactions (Kafka: transactional id), unique among the living. Whoever joins
    /// with a slot fences the older holder, so that a restarted process ends its predecessor's open transaction.
    pub slot: Arc<str>,
    /// The topics to share.
    pub topics: Vec<Arc<str>>,
    /// Where to start in a partition of which the group has committed nothing.
    pub start: StartAt,
    /// How much one [`MemberEvent::Records`] holds at most.
    pub fetch: FetchBounds,
    /// After how long without a sign of life the group takes the partitions away; `None`: as the log is
    /// configured. A log that lives in this process sees its members die and ignores it.
    pub session_timeout: Option<Duration>,
}

/// Where to start in a partition of which the group has committed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// With the oldest record.
    Earliest,
    /// With the first record written after the group's first assignment of the partition. A rewind comes back to
    /// that place, not to the end of its own moment; a process that starts anew before the first commit does not.
    Latest,
}

/// Bounds of one fetch. At least one record is given, however large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchBounds {
    /// Records at most.
    pub records_max: usize,
    /// Bytes of keys, values and headers at most.
    pub bytes_max: usize,
}

impl Default for FetchBounds {
    /// 512 records or 1 MiB: what one transaction of the publish loop holds at most.
    fn default() -> Self {
        Self { records_max: 512, bytes_max: 1024 * 1024 }
    }
}

/// A member of a consumer group: the intake's side.
///
/// Dropping it leaves the group as far as that is possible without waiting; [`Member::leave`] is the orderly way.
#[async_trait]
pub trait Member: Send {
    /// What happens next. Waits until something does. Cancel safe: an abandoned call loses nothing.
    ///
    /// Changes of ownership come before records, a revocation before the assignment that replaces it. Records are
    /// only ever of partitions that were announced as assigned and not as revoked since, with the epoch announced.
    ///
    /// # Errors
    /// [`StreamError::Fenced`] once a newer member holds the slot; a failing storage (call again after a delay
    /// when the disposition says so).
    async fn next(&mut self) -> Result<MemberEvent, StreamError>;

    /// Stops yielding records of these partitions, at once. A new assignment of a partition starts unpaused.
    ///
    /// Pausing may throw prefetched records away (they are fetched again): pause for seconds, not for moments.
    fn pause(&mut self, partitions: &[TopicPartition]);

    /// Yields records of these partitions again, from where it stopped.
    fn resume(&mut self, partitions: &[TopicPartition]);

    /// The publisher's side of this member. Every call gives the same.
    fn committer(&self) -> Arc<dyn Committer>;

    /// Leaves the group and returns when the others can take over. Commit first: afterwards nothing can be.
    ///
    /// # Errors
    /// Whatever kept the log from hearing it; the partitions are then released after the session timeout.
    async fn leave(self: Box<Self>) -> Result<(), StreamError>;
}

/// What happens to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberEvent {
    /// These partitions are this member's now, under new epochs.
    Assigned(Vec<Assignment>),
    /// These partitions are not this member's any more: give up their work in flight, its commit would be refused.
    ///
    /// A *rewind* (after an aborted or unknown transaction) is this same event, followed by an assignment of the
    /// same partitions from their committed offsets.
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// They went without asking (session over), or while a rewind kept them from coming back: others may already work
        /// on them. Of the latter the rewind's own event may have been told before.
        lost: bool,
    },
    /// Records of one partition, in order, at least one.
    Records {
        /// The partition.
        partition: TopicPartition,
        /// The assignment under which they were fetched: jobs carry it to their commit.
        epoch: AssignmentEpoch,
        /// The records.
        records: Vec<Record>,
    },
}

/// One partition given to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The partition.
    pub partition: TopicPartition,
    /// The assignment's number.
    pub epoch: AssignmentEpoch,
    /// Where the records start: the group's committed offset, or by [`StartAt`].
    pub next_offset: i64,
}

/// The number of an assignment: within this process no two assignments of a partition to a member share one, and
/// a later one is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssignmentEpoch(pub u64);

impl fmt::Display for AssignmentEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}", self.0)
    }
}

/// A member of a consumer group: the publisher's side.
#[async_trait]
pub trait Committer: Send + Sync {
    /// Writes the records and moves the group's offsets, both or neither.
    ///
    /// One call at a time is the intended use; concurrent calls are carried out one after the other. Not cancel
    /// safe: whoever abandons it does not learn the answer, and the member does not rewind for it.
    async fn commit(&self, transaction: Transaction) -> Commit;
}

/// Records and offsets that become visible together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What to write. May be empty: offsets alone are a transaction too.
    pub records: Vec<NewRecord>,
    /// What is thereby done with. At most one entry per partition.
    pub offsets: Vec<CommitOffset>,
}

/// That a partition is done with up to an offset. Offsets do not go back: one below what is committed is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// The assignment under which the work was taken in.
    pub epoch: AssignmentEpoch,
    /// The first offset that is not done: the last one done + 1.
    pub next_offset: i64,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an uncommitted transaction has to be given up or done again"]
pub enum Commit {
    /// Durable and visible, records and offsets.
    Committed {
        /// Where the records lie, in the transaction's order.
        positions: Vec<Position>,
    },
    /// Nothing of it is visible, nor will be.
    Aborted {
        /// Why, and thereby what to do.
        reason: AbortReason,
    },
    /// A newer member holds the slot; nothing was written. This process must leave and be started anew.
    Fenced {
        /// What is known about it, for the log.
        reason: String,
    },
    /// It may have happened or not. The member rewinds to what is committed: [`MemberEvent::Revoked`] and
    /// [`MemberEvent::Assigned`] follow; give the work up and take it in again.
    Unknown {
        /// What happened, for the log.
        reason: String,
    },
}

/// Why a transaction was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AbortReason {
    /// These partitions have been revoked or reassigned since. Drop their work and commit the rest: no rewind
    /// follows, the others' offsets stand as they are.
    StaleEpoch {
        /// Which.
        partitions: Vec<TopicPartition>,
    },
    /// These partitions are this member's still, and a transaction before this one sent them back to what is
    /// committed: drop their work and commit the rest, as with the above.
    Rewound {
        /// Which.
        partitions: Vec<TopicPartition>,
    },
    /// The log could not or would not do it. The member rewinds to what is committed: [`MemberEvent::Revoked`] and
    /// [`MemberEvent::Assigned`] follow (the latter once the log is ready again); give the work up and take it in
    /// again.
    Failed(StreamError),
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StaleEpoch { partitions } => write!(f, "no longer the owner of {}", listed(partitions)),
            Self::Rewound { partitions } => {
                write!(f, "sent back to what is committed of {}", listed(partitions))
            }
            Self::Failed(error) => error.fmt(f),
        }
    }
}

fn listed(partitions: &[TopicPartition]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
