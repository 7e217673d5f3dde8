//! Who owns what under which epoch: the state behind the one lock that transactions and rebalances share.
//!
//! A partition that the group gives to this member first *waits*: nobody knows yet where its records start. Once the
//! committed offset is known it is *owned*, under an epoch of its own. A rewind sends it back to waiting. A partition
//! that is neither can be committed by nobody here, whatever a publisher still believes. Pure; property-tested.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::member::{AssignmentEpoch, CommitOffset};
use crate::record::TopicPartition;

/// Numbers assignments: grows for as long as the process lives, over all members of a log.
#[derive(Debug, Default)]
pub(crate) struct Epochs {
    last: AtomicU64,
}

impl Epochs {
    fn next(&self) -> AssignmentEpoch {
        AssignmentEpoch(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn last(&self) -> AssignmentEpoch {
        AssignmentEpoch(self.last.load(Ordering::Relaxed))
    }
}

/// What one member has of its group.
#[derive(Debug)]
pub(crate) struct Ownership {
    epochs: Arc<Epochs>,
    owned: BTreeMap<TopicPartition, Owned>,
    waiting: BTreeMap<TopicPartition, Waiting>,
    last_ticket: u64,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owned {
    epoch: AssignmentEpoch,
    /// The last epoch of before the group gave it: later ones are of this stay.
    since: AssignmentEpoch,
    /// Offsets do not go back below this.
    committed: i64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    ticket: Ticket,
    /// As with what is owned.
    since: AssignmentEpoch,
}

/// One stay among the waiting: an answer about an older stay is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// Whether this member may still do anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Member,
    /// The group does not know it (any more): until the group has given partitions again, nothing can be committed.
    Adrift,
    Left,
    /// A newer holder has its slot.
    Fenced(Arc<str>),
}

/// Why a transaction must not happen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// These are not this member's any more, or not without a break.
    Stale(Vec<TopicPartition>),
    /// These have been its own all the time, and were sent back to what is committed.
    Rewound(Vec<TopicPartition>),
    Invalid(String),
}

impl Ownership {
    pub(crate) fn new(epochs: Arc<Epochs>) -> Self {
        Self {
            epochs,
            owned: BTreeMap::new(),
            waiting: BTreeMap::new(),
            last_ticket: 0,
            standing: Standing::Member,
        }
    }

    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The group gives these.
    pub(crate) fn arrive(&mut self, partitions: &[TopicPartition]) {
        if self.standing == Standing::Adrift {
            self.standing = Standing::Member;
        }
        if self.standing != Standing::Member {
            return;
        }
        let since = self.epochs.last();
        for partition in partitions {
            self.owned.remove(partition);
            self.wait(partition.clone(), since);
        }
    }

    /// The group takes these. From here on their transactions are refused.
    pub(crate) fn depart(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.owned.remove(partition);
            self.waiting.remove(partition);
        }
    }

    /// Everything owned begins anew from what is committed. Gives what was owned.
    pub(crate) fn rewind(&mut self) -> Vec<TopicPartition> {
        let owned = std::mem::take(&mut self.owned);
        for (partition, Owned { since, .. }) in &owned {
            self.wait(partition.clone(), *since);
        }
        owned.into_keys().collect()
    }

    /// The group has refused this member: nothing is its own until the group gives again. Gives what was owned.
    pub(crate) fn go_adrift(&mut self) -> Vec<TopicPartition> {
        self.end(Standing::Adrift)
    }

    /// This member has left. Gives what was owned.
    pub(crate) fn leave(&mut self) -> Vec<TopicPartition> {
        match self.standing {
            Standing::Fenced(_) => Vec::new(),
            _ => self.end(Standing::Left),
        }
    }

    /// A newer holder has the slot. Gives what was owned.
    pub(crate) fn fence(&mut self, why: &str) -> Vec<TopicPartition> {
        self.end(Standing::Fenced(why.into()))
    }

    fn end(&mut self, standing: Standing) -> Vec<TopicPartition> {
        self.standing = standing;
        self.waiting.clear();
        std::mem::take(&mut self.owned).into_keys().collect()
    }

    fn wait(&mut self, partition: TopicPartition, since: AssignmentEpoch) {
        self.last_ticket += 1;
        self.waiting.insert(partition, Waiting { ticket: Ticket(self.last_ticket), since });
    }

    /// What waits for its committed offset.
    pub(crate) fn waiting(&self) -> Vec<(TopicPartition, Ticket)> {
        self.waiting.iter().map(|(partition, waiting)| (partition.clone(), waiting.ticket)).collect()
    }

    /// The committed offset of a waiting partition is known: it is owned from now on, unless it went meanwhile.
    pub(crate) fn settle(
        &mut self,
        partition: &TopicPartition,
        ticket: Ticket,
        committed: Option<i64>,
    ) -> Option<AssignmentEpoch> {
        let Entry::Occupied(entry) = self.waiting.entry(partition.clone()) else { return None };
        if entry.get().ticket != ticket {
            return None;
        }
        let Waiting { since, .. } = entry.remove();
        let epoch = self.epochs.next();
        self.owned.insert(partition.clone(), Owned { epoch, since, committed: committed.unwrap_or(0) });
        Some(epoch)
    }

    /// Whether a transaction may move these offsets; `given` is how far records were given out.
    pub(crate) fn check(
        &self,
        offsets: &[CommitOffset],
        given: impl Fn(&TopicPartition) -> Option<i64>,
    ) -> Result<(), Refusal> {
        let is_stale = |offset: &&CommitOffset| {
            self.owned.get(&offset.partition).is_none_or(|owned| owned.epoch != offset.epoch)
        };
        let stale: Vec<_> = offsets.iter().filter(is_stale).collect();
        if !stale.is_empty() {
            let partitions = stale.iter().map(|offset| offset.partition.clone()).collect();
            let is_ours = stale.iter().all(|offset| self.has_kept(offset));
            return Err(if is_ours { Refusal::Rewound(partitions) } else { Refusal::Stale(partitions) });
        }
        for (index, CommitOffset { partition, next_offset, .. }) in offsets.iter().enumerate() {
            if offsets[..index].iter().any(|other| other.partition == *partition) {
                return Err(Refusal::Invalid(format!("two offsets for {partition} in one transaction")));
            }
            let least = self.owned[partition].committed;
            let most = given(partition).unwrap_or(i64::MAX);
            if !(least..=most).contains(next_offset) {
                return Err(Refusal::Invalid(format!(
                    "offset {next_offset} of {partition} is not in {least}..={most}"
                )));
            }
        }
        Ok(())
    }

    /// Whether the partition has been this member's ever since that epoch.
    fn has_kept(&self, CommitOffset { partition, epoch, .. }: &CommitOffset) -> bool {
        let owned = self.owned.get(partition).map(|owned| owned.since);
        let since = owned.or_else(|| self.waiting.get(partition).map(|waiting| waiting.since));
        since.is_some_and(|since| since < *epoch && *epoch <= self.epochs.last())
    }

    /// A transaction moved these.
    pub(crate) fn committed(&mut self, offsets: &[CommitOffset]) {
        for offset in offsets {
            if let Some(owned) = self.owned.get_mut(&offset.partition) {
                owned.committed = owned.committed.max(offset.next_offset);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partition(index: i32) -> TopicPartition {
        TopicPartition::new("t", index)
    }

    fn ownership() -> Ownership {
        Ownership::new(Arc::default())
    }

    fn offset(index: i32, epoch: AssignmentEpoch, next_offset: i64) -> CommitOffset {
        CommitOffset { partition: partition(index), epoch, next_offset }
    }

    #[test]
    fn an_answer_about_an_older_stay_is_not_taken() {
        let mut ownership = ownership();
        ownership.arrive(&[partition(0)]);
        let (_, first) = ownership.waiting()[0].clone();
        ownership.depart(&[partition(0)]);
        assert_eq!(ownership.settle(&partition(0), first, None), None, "it is gone");
        ownership.arrive(&[partition(0)]);
        assert_eq!(ownership.settle(&partition(0), first, None), None, "it went and came back");
        let (_, second) = ownership.waiting()[0].clone();
        assert!(ownership.settle(&partition(0), second, Some(5)).is_some());
    }

    #[test]
    fn offsets_stay_between_what_is_committed_and_what_was_given() {
        let mut ownership = ownership();
        ownership.arrive(&[partition(0)]);
        let (_, ticket) = ownership.waiting()[0].clone();
        let epoch = ownership.settle(&partition(0), ticket, Some(5)).expect("it waits");
        let given = |_: &TopicPartition| Some(9);
        let check = |ownership: &Ownership, next| ownership.check(&[offset(0, epoch, next)], given);
        assert!(check(&ownership, 5).is_ok() && check(&ownership, 9).is_ok());
        assert!(matches!(check(&ownership, 4), Err(Refusal::Invalid(_))));
        assert!(matches!(check(&ownership, 10), Err(Refusal::Invalid(_))));
        ownership.committed(&[offset(0, epoch, 7)]);
        assert!(matches!(check(&ownership, 6), Err(Refusal::Invalid(_))));
        let twice = [offset(0, epoch, 8), offset(0, epoch, 9)];
        assert!(matches!(ownership.check(&twice, given), Err(Refusal::Invalid(_))));
    }

    #[test]
    fn what_arrives_within_a_transaction_waits_on_when_that_is_aborted() {
        let mut ownership = ownership();
        ownership.arrive(&[partition(0)]);
        let (_, ticket) = ownership.waiting()[0].clone();
        let epoch = ownership.settle(&partition(0), ticket, Some(5)).expect("it waits");
        // The callback runs as soon as the transaction lets go of the lock, or just before it takes it.
        ownership.arrive(&[partition(1)]);
        let (_, arrived) = ownership.waiting()[0].clone();
        assert_eq!(ownership.rewind(), [partition(0)], "what was never owned is not told as gone");
        assert_eq!(ownership.waiting().len(), 2);
        let later =
            ownership.settle(&partition(1), arrived, None).expect("its question is still the right one");
        assert!(ownership.check(&[offset(1, later, 0)], |_| None).is_ok());
        assert_eq!(
            ownership.check(&[offset(0, epoch, 5), offset(1, later, 0)], |_| None),
            Err(Refusal::Rewound(vec![partition(0)])),
            "one that was sent back takes the other with it"
        );
        // What comes a second time, without having gone, begins anew as well; nobody knows whose it was meanwhile.
        ownership.arrive(&[partition(1)]);
        assert_eq!(
            ownership.check(&[offset(0, epoch, 5), offset(1, later, 0)], |_| None),
            Err(Refusal::Stale(vec![partition(0), partition(1)]))
        );
    }

    #[test]
    fn who_is_fenced_stays_fenced() {
        let mut ownership = ownership();
        ownership.fence("a newer one");
        ownership.leave();
        ownership.arrive(&[partition(0)]);
        assert_eq!(ownership.standing(), &Standing::Fenced("a newer one".into()));
        assert_eq!(ownership.waiting(), []);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arrive(Vec<i32>),
        Depart(Vec<i32>),
        Settle(usize),
        Rewind,
        Adrift,
    }

    fn step() -> impl Strategy<Value = Step> {
        let some = || proptest::collection::vec(0..4, 0..4);
        prop_oneof![
            some().prop_map(Step::Arrive),
            some().prop_map(Step::Depart),
            (0..4usize).prop_map(Step::Settle),
            Just(Step::Rewind),
            Just(Step::Adrift),
        ]
    }

    proptest! {
        /// Against a naive model: an epoch is good from its settling until anything happens to its partition, never
        /// again, and no two are the same. An old one is a rewind's doing if nothing but rewinds happened since.
        #[test]
        fn an_epoch_is_good_once(steps in proptest::collection::vec(step(), 1..60)) {
            let mut ownership = ownership();
            let mut good: BTreeMap<i32, AssignmentEpoch> = BTreeMap::new();
            let mut ever: Vec<(i32, AssignmentEpoch)> = Vec::new();
            let mut kept: Vec<(i32, AssignmentEpoch)> = Vec::new();
            for step in steps {
                let named = |list: &[i32]| list.iter().map(|index| partition(*index)).collect::<Vec<_>>();
                match step {
                    Step::Arrive(list) => {
                        ownership.arrive(&named(&list));
                        good.retain(|index, _| !list.contains(index));
                        kept.retain(|(index, _)| !list.contains(index));
                    }
                    Step::Depart(list) => {
                        ownership.depart(&named(&list));
                        good.retain(|index, _| !list.contains(index));
                        kept.retain(|(index, _)| !list.contains(index));
                    }
                    Step::Settle(nth) => {
                        if let Some((partition, ticket)) = ownership.waiting().get(nth).cloned() {
                            let epoch = ownership.settle(&partition, ticket, None).expect("it waits");
                            prop_assert!(ever.iter().all(|(_, other)| *other < epoch), "epochs grow");
                            ever.push((partition.partition, epoch));
                            kept.push((partition.partition, epoch));
                            good.insert(partition.partition, epoch);
                        }
                    }
                    Step::Rewind => {
                        let rewound = ownership.rewind();
                        prop_assert_eq!(rewound, good.keys().map(|index| partition(*index)).collect::<Vec<_>>());
                        good.clear();
                    }
                    Step::Adrift => {
                        ownership.go_adrift();
                        prop_assert_eq!(ownership.waiting(), []);
                        good.clear();
                        kept.clear();
                    }
                }
                for (index, epoch) in &ever {
                    let expected = if good.get(index) == Some(epoch) {
                        Ok(())
                    } else if kept.contains(&(*index, *epoch)) {
                        Err(Refusal::Rewound(vec![partition(*index)]))
                    } else {
                        Err(Refusal::Stale(vec![partition(*index)]))
                    };
                    prop_assert_eq!(ownership.check(&[offset(*index, *epoch, 0)], |_| None), expected);
                }
            }
        }
    }
}
