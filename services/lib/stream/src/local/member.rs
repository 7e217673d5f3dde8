//! A member of a group, and its committer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};

use super::Core;
use super::assign::MemberId;
use super::catalog::Partition;
use super::commands::Command;
use super::groups::{Grant, View};
use super::read::fetch;
use crate::error::StreamError;
use crate::member::{
    AbortReason, Assignment, AssignmentEpoch, Commit, Committer, FetchBounds, Member, MemberEvent,
    Membership, Transaction,
};
use crate::record::TopicPartition;

/// The intake's side.
pub(crate) struct LocalMember {
    id: MemberId,
    core: Arc<Core>,
    slot: Arc<str>,
    bounds: FetchBounds,
    view: watch::Receiver<View>,
    appended: watch::Receiver<u64>,
    /// What the caller knows to be its own.
    held: BTreeMap<TopicPartition, Held>,
    /// The partition that was read last: the next one in order is next.
    last_read: Option<TopicPartition>,
    committer: Arc<LocalCommitter>,
    left: bool,
}

struct Held {
    partition: Arc<Partition>,
    epoch: AssignmentEpoch,
    next_offset: i64,
    paused: bool,
}

impl LocalMember {
    pub(crate) fn new(
        core: Arc<Core>,
        membership: &Membership,
        (id, view): (MemberId, watch::Receiver<View>),
    ) -> Self {
        let committer = LocalCommitter { id, core: Arc::clone(&core), view: view.clone() };
        let appended = core.shared.appended.subscribe();
        Self {
            id,
            core,
            slot: Arc::clone(&membership.slot),
            bounds: membership.fetch,
            view,
            appended,
            held: BTreeMap::new(),
            last_read: None,
            committer: Arc::new(committer),
            left: false,
        }
    }

    /// The next difference between what the caller knows and what is: what is gone first, then what is new.
    fn reconcile(&mut self) -> Result<Option<MemberEvent>, StreamError> {
        if self.core.shared.is_closed() {
            return Err(self.core.shared.closed_error());
        }
        let view = self.view.borrow_and_update();
        if let Some(why) = &view.fenced {
            return Err(StreamError::Fenced { slot: self.slot.to_string(), why: why.to_string() });
        }
        let is_current = |name: &TopicPartition, held: &Held| {
            view.grants.get(name).is_some_and(|grant| grant.epoch == held.epoch)
        };
        let gone: Vec<TopicPartition> = self
            .held
            .iter()
            .filter(|(name, held)| !is_current(name, held))
            .map(|(name, _)| name.clone())
            .collect();
        if !gone.is_empty() {
            self.held.retain(|name, held| is_current(name, held));
            return Ok(Some(MemberEvent::Revoked { partitions: gone, lost: false }));
        }
        let mut new = Vec::new();
        for (name, grant) in &view.grants {
            if !self.held.contains_key(name) {
                self.held.insert(name.clone(), Held::of(grant));
                let partition = name.clone();
                new.push(Assignment { partition, epoch: grant.epoch, next_offset: grant.start });
            }
        }
        Ok((!new.is_empty()).then_some(MemberEvent::Assigned(new)))
    }

    /// The next partition in turn that has something to read.
    fn readable(&self) -> Option<(&TopicPartition, &Held)> {
        let has_more = |held: &Held| !held.paused && held.next_offset < held.partition.high();
        let after = |name: &TopicPartition| self.last_read.as_ref().is_none_or(|last| name > last);
        let mut candidates = self.held.iter().filter(|(_, held)| has_more(held));
        let first = candidates.clone().next();
        candidates.find(|(name, _)| after(name)).or(first)
    }
}

#[async_trait]
impl Member for LocalMember {
    async fn next(&mut self) -> Result<MemberEvent, StreamError> {
        loop {
            if let Some(event) = self.reconcile()? {
                return Ok(event);
            }
            // Seen before looking: what is appended while we look wakes us up again.
            self.appended.borrow_and_update();
            if let Some((name, held)) = self.readable() {
                let (name, epoch) = (name.clone(), held.epoch);
                let high = held.partition.high();
                let range = held.next_offset..high;
                let records = fetch(&self.core.shared, &held.partition, range, self.bounds).await?;
                // Nothing is awaited from here on: an abandoned call must not skip what it fetched.
                if self.view.has_changed().unwrap_or(true) {
                    continue;
                }
                let next_offset = records.last().map_or(high, |record| record.position.offset + 1);
                if let Some(held) = self.held.get_mut(&name) {
                    held.next_offset = next_offset;
                }
                self.last_read = Some(name.clone());
                if records.is_empty() {
                    // A gap: retention or compaction took what was there.
                    continue;
                }
                return Ok(MemberEvent::Records { partition: name, epoch, records });
            }
            tokio::select! {
                changed = self.view.changed() => {
                    if changed.is_err() {
                        return Err(self.core.shared.closed_error());
                    }
                }
                appended = self.appended.changed() => {
                    if appended.is_err() {
                        return Err(self.core.shared.closed_error());
                    }
                }
            }
        }
    }

    fn pause(&mut self, partitions: &[TopicPartition]) {
        for name in partitions {
            if let Some(held) = self.held.get_mut(name) {
                held.paused = true;
            }
        }
    }

    fn resume(&mut self, partitions: &[TopicPartition]) {
        for name in partitions {
            if let Some(held) = self.held.get_mut(name) {
                held.paused = false;
            }
        }
    }

    fn committer(&self) -> Arc<dyn Committer> {
        Arc::clone(&self.committer) as Arc<dyn Committer>
    }

    async fn leave(mut self: Box<Self>) -> Result<(), StreamError> {
        let (reply, answer) = oneshot::channel();
        self.core.ask(Command::Leave { member: self.id, reply }, 0, answer).await?;
        self.left = true;
        Ok(())
    }
}

impl Drop for LocalMember {
    fn drop(&mut self) {
        if !self.left {
            self.core.shared.depart(self.id);
        }
    }
}

impl Held {
    fn of(grant: &Grant) -> Self {
        Self {
            partition: Arc::clone(&grant.partition),
            epoch: grant.epoch,
            next_offset: grant.start,
            paused: false,
        }
    }
}

/// The publisher's side.
pub(crate) struct LocalCommitter {
    id: MemberId,
    core: Arc<Core>,
    view: watch::Receiver<View>,
}

#[async_trait]
impl Committer for LocalCommitter {
    async fn commit(&self, transaction: Transaction) -> Commit {
        let began = Instant::now();
        let commit = self.transact(transaction).await;
        self.core.shared.metrics.transaction(&commit, began.elapsed());
        commit
    }
}

impl LocalCommitter {
    async fn transact(&self, transaction: Transaction) -> Commit {
        let Transaction { records, offsets } = transaction;
        let rows = self.core.rows(records);
        let bytes = rows.as_ref().map_or(0, |rows| rows.iter().map(super::commands::Row::size_bytes).sum());
        let partitions: Vec<TopicPartition> = offsets.iter().map(|offset| offset.partition.clone()).collect();
        let (reply, answer) = oneshot::channel();
        let command = Command::Commit { member: self.id, rows, offsets, reply };
        if !self.core.shared.queue.send(command, bytes).await {
            return Commit::Aborted { reason: AbortReason::Failed(self.core.shared.closed_error()) };
        }
        match answer.await {
            Ok(Some(commit)) => commit,
            // Not a member any more: the last view says why.
            Ok(None) => match &self.view.borrow().fenced {
                Some(reason) => Commit::Fenced { reason: reason.to_string() },
                None if partitions.is_empty() => {
                    let error = StreamError::Closed { what: "this membership".to_owned() };
                    Commit::Aborted { reason: AbortReason::Failed(error) }
                }
                None => Commit::Aborted { reason: AbortReason::StaleEpoch { partitions } },
            },
            Err(_) => Commit::Unknown { reason: "the log was closed before it answered".to_owned() },
        }
    }
}
