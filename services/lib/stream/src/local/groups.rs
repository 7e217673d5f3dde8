//! Consumer groups: who is a member, who owns what under which epoch. State only; the writer owns it and calls it
//! between commits, so that no partition changes hands while a transaction is under way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::watch;

use super::assign::{MemberId, assign};
use super::catalog::{Partition, Topic};
use crate::member::{AssignmentEpoch, CommitOffset, Membership, StartAt};
use crate::metrics::Metrics;
use crate::record::TopicPartition;

/// What the file says the groups have committed, by group and partition id.
pub(crate) type Committed = HashMap<(Arc<str>, i64), i64>;

/// All groups of the log.
pub(crate) struct Groups {
    members: BTreeMap<MemberId, Joined>,
    /// Where each group began in partitions of which it has committed nothing: a rewind must come back to the same
    /// place, also when that was "the end" and the end has moved on.
    starts: HashMap<(Arc<str>, i64), i64>,
    last_member: MemberId,
    last_epoch: u64,
    /// While the log cannot write, nothing is given out: work taken in could not be committed.
    ready: bool,
    metrics: Metrics,
}

struct Joined {
    group: Arc<str>,
    slot: Arc<str>,
    start: StartAt,
    wants: BTreeMap<TopicPartition, Arc<Partition>>,
    /// Its share, and of each the last epoch of before: later ones are of this stay.
    owned: BTreeMap<TopicPartition, AssignmentEpoch>,
    /// What of its share it may work on now.
    grants: BTreeMap<TopicPartition, Grant>,
    view: watch::Sender<View>,
}

/// A partition that a member may work on.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) partition: Arc<Partition>,
    pub(crate) epoch: AssignmentEpoch,
    pub(crate) start: i64,
}

/// What a member sees of all this. It finds out itself what changed: however many changes it misses, there is
/// one view to catch up with, and no queue to overflow.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) grants: BTreeMap<TopicPartition, Grant>,
    pub(crate) fenced: Option<Arc<str>>,
}

/// The offsets that a transaction moves, by group and partition id.
pub(crate) type Moves = Vec<((Arc<str>, i64), i64)>;

/// Why a member's transaction must not happen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is no member any more.
    Gone,
    /// It does not own these under these epochs.
    Stale(Vec<TopicPartition>),
    /// It owns these, and was sent back in them to what is committed.
    Rewound(Vec<TopicPartition>),
    /// The offsets break a rule.
    Invalid(String),
}

impl Groups {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            members: BTreeMap::new(),
            starts: HashMap::new(),
            last_member: 0,
            last_epoch: 0,
            ready: true,
            metrics,
        }
    }

    /// A member joins; whoever held its slot is out.
    pub(crate) fn join(
        &mut self,
        membership: &Membership,
        topics: &[Arc<Topic>],
        committed: &Committed,
    ) -> (MemberId, watch::Receiver<View>) {
        let holders: Vec<MemberId> = self
            .members
            .iter()
            .filter(|(_, other)| other.slot == membership.slot)
            .map(|(id, _)| *id)
            .collect();
        for holder in holders {
            self.fence(holder, membership, committed);
        }
        self.last_member += 1;
        let (view, receiver) = watch::channel(View::default());
        let partitions = topics.iter().flat_map(|topic| &topic.partitions);
        self.members.insert(
            self.last_member,
            Joined {
                group: Arc::clone(&membership.group),
                slot: Arc::clone(&membership.slot),
                start: membership.start,
                wants: partitions.map(|partition| (partition.name.clone(), Arc::clone(partition))).collect(),
                owned: BTreeMap::new(),
                grants: BTreeMap::new(),
                view,
            },
        );
        self.rebalance(&membership.group, committed);
        (self.last_member, receiver)
    }

    fn fence(&mut self, holder: MemberId, newer: &Membership, committed: &Committed) {
        let Some(member) = self.members.remove(&holder) else { return };
        let reason = format!("another member joined group {} with slot {}", newer.group, newer.slot);
        tracing::warn!(group = %member.group, slot = %member.slot, "a newer member took the slot over");
        member.view.send_replace(View { grants: BTreeMap::new(), fenced: Some(reason.into()) });
        if member.group != newer.group {
            self.rebalance(&member.group, committed);
        }
    }

    /// A member leaves, in order or by being dropped.
    pub(crate) fn leave(&mut self, id: MemberId, committed: &Committed) {
        if let Some(member) = self.members.remove(&id) {
            member.view.send_replace(View::default());
            self.rebalance(&member.group, committed);
        }
    }

    /// Takes everything from a member and gives it back from the committed offsets, under new epochs.
    pub(crate) fn rewind(&mut self, id: MemberId, committed: &Committed) {
        if let Some(member) = self.members.get_mut(&id) {
            member.grants.clear();
            self.settle(id, committed);
        }
    }

    /// The log can write, or cannot: then nothing new is given out until it can again.
    pub(crate) fn set_ready(&mut self, ready: bool, committed: &Committed) {
        self.ready = ready;
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.settle(id, committed);
        }
    }

    /// Takes everything from everyone: what was committed is in doubt.
    pub(crate) fn rewind_all(&mut self, committed: &Committed) {
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.rewind(id, committed);
        }
    }

    /// What a member's transaction moves if it may happen; [`Refusal`] when it may not.
    pub(crate) fn check(
        &self,
        id: MemberId,
        offsets: &[CommitOffset],
        committed: impl Fn(&Arc<str>, &Partition) -> i64,
    ) -> Result<Moves, Refusal> {
        let member = self.members.get(&id).ok_or(Refusal::Gone)?;
        let (mut stale, mut is_ours) = (Vec::new(), true);
        let mut moves: Vec<(i64, i64)> = Vec::with_capacity(offsets.len());
        for offset in offsets {
            let CommitOffset { partition: name, epoch, next_offset } = offset;
            let Some(grant) = member.grants.get(name).filter(|grant| grant.epoch == *epoch) else {
                let since = member.owned.get(name);
                is_ours &= since.is_some_and(|since| since < epoch && epoch.0 <= self.last_epoch);
                stale.push(name.clone());
                continue;
            };
            if moves.iter().any(|(id, _)| *id == grant.partition.id) {
                return Err(Refusal::Invalid(format!("two offsets for {name} in one transaction")));
            }
            let least = committed(&member.group, &grant.partition);
            if !(least..=grant.partition.high()).contains(next_offset) {
                let high = grant.partition.high();
                return Err(Refusal::Invalid(format!(
                    "offset {next_offset} of {name} is not in {least}..={high}"
                )));
            }
            moves.push((grant.partition.id, *next_offset));
        }
        if !stale.is_empty() {
            return Err(if is_ours { Refusal::Rewound(stale) } else { Refusal::Stale(stale) });
        }
        Ok(moves
            .into_iter()
            .map(|(id, next_offset)| ((Arc::clone(&member.group), id), next_offset))
            .collect())
    }

    fn rebalance(&mut self, group: &Arc<str>, committed: &Committed) {
        let members = || self.members.iter().filter(|(_, member)| member.group == *group);
        let wants = members().map(|(id, member)| (*id, member.wants.keys().cloned().collect())).collect();
        let current =
            members().flat_map(|(id, member)| member.owned.keys().map(|name| (name.clone(), *id))).collect();
        let mut shares: BTreeMap<MemberId, BTreeSet<TopicPartition>> = BTreeMap::new();
        for id in members().map(|(id, _)| *id) {
            shares.insert(id, BTreeSet::new());
        }
        for (name, owner) in assign(&wants, &current) {
            shares.entry(owner).or_default().insert(name);
        }
        for (id, share) in shares {
            let member = self.members.get_mut(&id).expect("shares are made for members");
            if !member.owned.keys().eq(&share) {
                self.metrics.rebalance();
                let since =
                    |name| member.owned.get(&name).copied().unwrap_or(AssignmentEpoch(self.last_epoch));
                member.owned = share.into_iter().map(|name| (name.clone(), since(name))).collect();
                self.settle(id, committed);
            }
        }
    }

    /// Brings a member's grants in line with its share, and shows them.
    fn settle(&mut self, id: MemberId, committed: &Committed) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let owned = &member.owned;
        member.grants.retain(|name, _| owned.contains_key(name));
        if self.ready {
            for name in
                owned.keys().filter(|name| !member.grants.contains_key(*name)).cloned().collect::<Vec<_>>()
            {
                let partition = Arc::clone(&member.wants[&name]);
                let key = (Arc::clone(&member.group), partition.id);
                let start = committed.get(&key).copied().unwrap_or_else(|| {
                    *self.starts.entry(key).or_insert_with(|| match member.start {
                        StartAt::Earliest => partition.low(),
                        StartAt::Latest => partition.high(),
                    })
                });
                self.last_epoch += 1;
                let start = start.max(partition.low());
                let grant = Grant { partition, epoch: AssignmentEpoch(self.last_epoch), start };
                member.grants.insert(name, grant);
            }
        }
        let grants = &member.grants;
        member.view.send_if_modified(|view| {
            let same = view.grants.len() == grants.len()
                && grants
                    .iter()
                    .all(|(name, grant)| view.grants.get(name).is_some_and(|g| g.epoch == grant.epoch));
            if !same {
                view.grants.clone_from(grants);
            }
            !same
        });
    }
}
