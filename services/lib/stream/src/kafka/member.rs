//! A member of a group: the intake's side, and what its threads share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;

use super::inbox::Inbox;
use super::orders::Orders;
use super::ownership::{Ownership, Refusal, Standing};
use crate::error::StreamError;
use crate::member::{AbortReason, Commit, Committer, Member, MemberEvent, Membership, Transaction};
use crate::metrics::Metrics;
use crate::record::TopicPartition;

/// What the polling thread, the committing thread and the two handles of one member share.
pub(crate) struct Shared {
    pub(crate) membership: Membership,
    /// The one lock: a transaction holds it from its check to its commit, the rebalance callback while it changes
    /// who owns what. Where both are wanted, it is taken before the inbox.
    ownership: Mutex<Ownership>,
    pub(crate) inbox: Inbox,
    pub(crate) orders: Orders,
    pub(crate) metrics: Metrics,
    leaving: AtomicBool,
}

impl Shared {
    pub(crate) fn new(membership: Membership, ownership: Ownership, metrics: Metrics) -> Self {
        let inbox = Inbox::new(membership.fetch);
        Self {
            membership,
            ownership: Mutex::new(ownership),
            inbox,
            orders: Orders::default(),
            metrics,
            leaving: AtomicBool::new(false),
        }
    }

    pub(crate) fn ownership(&self) -> MutexGuard<'_, Ownership> {
        self.ownership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, if no transaction is under way.
    pub(crate) fn try_ownership(&self) -> Option<MutexGuard<'_, Ownership>> {
        match self.ownership.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Everybody ends: first the committing thread, after what was handed over, then the polling thread.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        self.orders.end();
        self.inbox.nudge();
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// A newer holder has the slot: nothing can be committed any more, and the intake hears it.
    pub(crate) fn fence(&self, ownership: &mut Ownership, why: &str) {
        let slot = self.membership.slot.to_string();
        tracing::error!(slot, "a newer holder of this slot came: {why}");
        let owned = ownership.fence(why);
        self.inbox.release(&owned, true);
        self.inbox.end(StreamError::Fenced { slot, why: why.to_owned() });
    }

    /// The answer to a transaction of somebody who is no member any more.
    pub(crate) fn no_member(&self, standing: &Standing, partitions: Vec<TopicPartition>) -> Commit {
        if let Standing::Fenced(why) = standing {
            return Commit::Fenced { reason: why.to_string() };
        }
        let reason = if partitions.is_empty() {
            AbortReason::Failed(StreamError::Closed { what: "this membership".to_owned() })
        } else {
            AbortReason::StaleEpoch { partitions }
        };
        Commit::Aborted { reason }
    }

    /// Why a transaction may not happen, if it may not.
    pub(crate) fn check(&self, ownership: &Ownership, transaction: &Transaction) -> Result<(), Refusal> {
        ownership.check(&transaction.offsets, |partition| self.inbox.given(partition))
    }
}

/// The intake's side.
pub(crate) struct KafkaMember {
    shared: Arc<Shared>,
    committer: Arc<KafkaCommitter>,
    /// Closes when the polling thread has left the group.
    gone: watch::Receiver<()>,
    patience: Duration,
}

impl KafkaMember {
    pub(crate) fn new(shared: Arc<Shared>, gone: watch::Receiver<()>, patience: Duration) -> Self {
        let turn = tokio::sync::Mutex::new(());
        let committer = Arc::new(KafkaCommitter { shared: Arc::clone(&shared), turn });
        Self { shared, committer, gone, patience }
    }
}

#[async_trait]
impl Member for KafkaMember {
    async fn next(&mut self) -> Result<MemberEvent, StreamError> {
        self.shared.inbox.next().await
    }

    fn pause(&mut self, partitions: &[TopicPartition]) {
        self.shared.inbox.pause(partitions);
    }

    fn resume(&mut self, partitions: &[TopicPartition]) {
        self.shared.inbox.resume(partitions);
    }

    fn committer(&self) -> Arc<dyn Committer> {
        Arc::clone(&self.committer) as Arc<dyn Committer>
    }

    async fn leave(mut self: Box<Self>) -> Result<(), StreamError> {
        self.shared.leave();
        // The sender is dropped by the thread that has left; it never sends.
        let left = async { while self.gone.changed().await.is_ok() {} };
        tokio::time::timeout(self.patience, left).await.map_err(|_| {
            let group = &self.shared.membership.group;
            StreamError::Unavailable { why: format!("group {group} did not hear of the leaving in time") }
        })
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        self.shared.leave();
    }
}

/// The publisher's side.
pub(crate) struct KafkaCommitter {
    shared: Arc<Shared>,
    /// Held from handing a transaction over to its answer: they are carried out one after the other.
    turn: tokio::sync::Mutex<()>,
}

#[async_trait]
impl Committer for KafkaCommitter {
    async fn commit(&self, transaction: Transaction) -> Commit {
        let began = Instant::now();
        let commit = self.transact(transaction).await;
        self.shared.metrics.transaction(&commit, began.elapsed());
        commit
    }
}

impl KafkaCommitter {
    async fn transact(&self, transaction: Transaction) -> Commit {
        let partitions: Vec<_> = transaction.offsets.iter().map(|offset| offset.partition.clone()).collect();
        let _turn = self.turn.lock().await;
        let Some(answer) = self.shared.orders.commit(transaction) else {
            return self.shared.no_member(self.shared.ownership().standing(), partitions);
        };
        answer.await.unwrap_or_else(|_| Commit::Unknown {
            reason: "the committing thread ended before it answered".to_owned(),
        })
    }
}
