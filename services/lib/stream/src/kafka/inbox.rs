//! What lies between the polling thread and the intake: changes of ownership, and a bounded number of records.
//!
//! There is no queue of events. The inbox knows what is held and what the intake has been told of it; each call
//! finds the next difference. However many changes an intake misses, there is one state to catch up with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::records::size_bytes;
use crate::error::StreamError;
use crate::member::{Assignment, AssignmentEpoch, FetchBounds, MemberEvent};
use crate::record::{Record, TopicPartition};

/// So many fetches of the intake lie ready at most: enough that it never waits for the polling thread.
const FETCHES_MAX: usize = 4;

/// The inbox of one member.
pub(crate) struct Inbox {
    bounds: FetchBounds,
    /// Guards all of it; held for moments.
    state: Mutex<State>,
    /// The intake may find something new.
    news: Notify,
    /// The polling thread may find room, or something to do.
    room: Condvar,
}

#[derive(Default)]
struct State {
    held: BTreeMap<TopicPartition, Held>,
    announced: BTreeMap<TopicPartition, AssignmentEpoch>,
    /// Of what was announced and is not held any more: what others may work on already.
    lost: BTreeSet<TopicPartition>,
    /// Announced once, sent back to what is committed, and not announced again since. If the group takes one meanwhile, it
    /// is lost.
    rewound: BTreeSet<TopicPartition>,
    records: usize,
    bytes: usize,
    last_read: Option<TopicPartition>,
    /// Nothing comes after this.
    end: Option<StreamError>,
    /// Grows when the polling thread has something to arrange.
    wishes: u64,
}

struct Held {
    epoch: AssignmentEpoch,
    start: i64,
    /// How far records were given to the intake.
    given: i64,
    paused: bool,
    /// Where the consumer has to go on from; until it is there, what it yields is not wanted.
    seek: Option<i64>,
    records: VecDeque<Record>,
}

/// How the consumer shall treat a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) epoch: AssignmentEpoch,
    pub(crate) paused: bool,
    pub(crate) seek: Option<i64>,
}

impl Inbox {
    pub(crate) fn new(bounds: FetchBounds) -> Self {
        Self { bounds, state: Mutex::default(), news: Notify::new(), room: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes up both sides.
    fn changed(&self, mut state: MutexGuard<'_, State>) {
        state.wishes += 1;
        drop(state);
        self.news.notify_one();
        self.room.notify_all();
    }

    /// These are held from now on, from these offsets.
    pub(crate) fn hold(&self, settled: &[(TopicPartition, AssignmentEpoch, i64)]) {
        let mut state = self.lock();
        for (partition, epoch, start) in settled {
            state.remove(partition);
            let held = Held {
                epoch: *epoch,
                start: *start,
                given: *start,
                paused: false,
                seek: Some(*start),
                records: VecDeque::new(),
            };
            state.held.insert(partition.clone(), held);
        }
        self.changed(state);
    }

    /// These are not held any more.
    pub(crate) fn release(&self, partitions: &[TopicPartition], lost: bool) {
        let mut state = self.lock();
        for partition in partitions {
            state.remove(partition);
            if state.rewound.remove(partition) || lost && state.announced.contains_key(partition) {
                state.lost.insert(partition.clone());
            }
        }
        self.changed(state);
    }

    /// These will be held again, from what is committed.
    pub(crate) fn rewind(&self, partitions: &[TopicPartition]) {
        let mut state = self.lock();
        for partition in partitions {
            state.remove(partition);
            if state.announced.contains_key(partition) {
                state.rewound.insert(partition.clone());
            }
        }
        self.changed(state);
    }

    /// Nothing comes after this error. The first one stays.
    pub(crate) fn end(&self, error: StreamError) {
        let mut state = self.lock();
        state.end.get_or_insert(error);
        self.changed(state);
    }

    /// A record that the consumer has yielded.
    pub(crate) fn push(&self, partition: &TopicPartition, record: Record) {
        let mut state = self.lock();
        let Some(held) = state.held.get_mut(partition) else { return };
        if held.seek.is_some() {
            return;
        }
        // librdkafka may yield a record twice that it was yielding while it paused its partition for a rebalance.
        let given = (held.given > held.start).then(|| held.given - 1);
        let newest = held.records.back().map(|record| record.position.offset).or(given);
        if newest.is_some_and(|newest| record.position.offset <= newest) {
            return;
        }
        if held.paused {
            // The consumer has not heard of it yet: come back for this one.
            held.seek = Some(record.position.offset);
            return;
        }
        let was_empty = held.records.is_empty();
        let size = size_bytes(&record);
        held.records.push_back(record);
        state.records += 1;
        state.bytes += size;
        drop(state);
        if was_empty {
            self.news.notify_one();
        }
    }

    /// Whether the polling thread should not take more.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().exceeds(self.bounds, FETCHES_MAX)
    }

    /// Whether it may take more after it was full.
    pub(crate) fn has_room(&self) -> bool {
        !self.lock().exceeds(self.bounds, FETCHES_MAX / 2)
    }

    /// Waits for room, or for something to arrange; false when there was neither in time.
    pub(crate) fn wait_for_room(&self, patience: Duration, seen: u64) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.lock();
        while state.exceeds(self.bounds, FETCHES_MAX) && state.wishes == seen {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.room.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Wakes the polling thread from waiting for room.
    pub(crate) fn nudge(&self) {
        let state = self.lock();
        self.changed(state);
    }

    /// How many partitions are held.
    pub(crate) fn held_count(&self) -> usize {
        self.lock().held.len()
    }

    /// How often there was something to arrange.
    pub(crate) fn wish_count(&self) -> u64 {
        self.lock().wishes
    }

    /// What the consumer shall do.
    pub(crate) fn wishes(&self) -> (u64, BTreeMap<TopicPartition, Wish>) {
        let state = self.lock();
        let wish = |held: &Held| Wish { epoch: held.epoch, paused: held.paused, seek: held.seek };
        (state.wishes, state.held.iter().map(|(name, held)| (name.clone(), wish(held))).collect())
    }

    /// The consumer goes on from there now.
    pub(crate) fn sought(&self, partition: &TopicPartition, wish: Wish) {
        if let Some(held) = self.lock().held.get_mut(partition)
            && held.epoch == wish.epoch
            && held.seek == wish.seek
        {
            held.seek = None;
        }
    }

    /// How far records of a partition were given to the intake.
    pub(crate) fn given(&self, partition: &TopicPartition) -> Option<i64> {
        self.lock().held.get(partition).map(|held| held.given)
    }

    pub(crate) fn pause(&self, partitions: &[TopicPartition]) {
        let mut state = self.lock();
        for partition in partitions {
            if let Some(held) = state.held.get_mut(partition).filter(|held| !held.paused) {
                held.paused = true;
                if let Some(first) = held.records.front() {
                    held.seek = Some(first.position.offset);
                }
                let thrown_away = std::mem::take(&mut held.records);
                state.forget(&thrown_away);
            }
        }
        self.changed(state);
    }

    pub(crate) fn resume(&self, partitions: &[TopicPartition]) {
        let mut state = self.lock();
        for partition in partitions {
            if let Some(held) = state.held.get_mut(partition) {
                held.paused = false;
            }
        }
        self.changed(state);
    }

    /// The next thing that the intake has to know. Cancel safe.
    pub(crate) async fn next(&self) -> Result<MemberEvent, StreamError> {
        loop {
            if let Some(event) = self.take()? {
                return Ok(event);
            }
            self.news.notified().await;
        }
    }

    fn take(&self) -> Result<Option<MemberEvent>, StreamError> {
        let mut state = self.lock();
        if let Some(error) = &state.end {
            return Err(error.clone());
        }
        if let Some(event) = state.reconcile() {
            return Ok(Some(event));
        }
        let records = state.fetch(self.bounds);
        drop(state);
        if records.is_some() {
            self.room.notify_all();
        }
        Ok(records)
    }
}

impl State {
    fn remove(&mut self, partition: &TopicPartition) {
        if let Some(held) = self.held.remove(partition) {
            self.forget(&held.records);
        }
    }

    fn forget(&mut self, records: &VecDeque<Record>) {
        self.records -= records.len();
        self.bytes -= records.iter().map(size_bytes).sum::<usize>();
    }

    fn exceeds(&self, bounds: FetchBounds, fetches: usize) -> bool {
        self.records >= bounds.records_max.saturating_mul(fetches).max(1)
            || self.bytes >= bounds.bytes_max.saturating_mul(fetches).max(1)
    }

    /// The next difference between what the intake knows and what is: what is gone first, then what is new.
    fn reconcile(&mut self) -> Option<MemberEvent> {
        let held = &self.held;
        let is_gone = |(name, epoch): &(&TopicPartition, &AssignmentEpoch)| {
            held.get(*name).is_none_or(|held| held.epoch != **epoch)
        };
        let gone = self.announced.iter().filter(is_gone).map(|(name, _)| name);
        let released: Vec<_> = gone.filter(|name| !self.lost.contains(*name)).cloned().collect();
        let lost: Vec<_> = self.lost.iter().cloned().collect();
        // One event for each kind, what others may be working on already first.
        for (partitions, lost) in [(lost, true), (released, false)] {
            if !partitions.is_empty() {
                for partition in &partitions {
                    self.announced.remove(partition);
                    self.lost.remove(partition);
                }
                return Some(MemberEvent::Revoked { partitions, lost });
            }
        }
        let mut new = Vec::new();
        for (partition, held) in &self.held {
            if !self.announced.contains_key(partition) {
                let (epoch, next_offset) = (held.epoch, held.start);
                new.push(Assignment { partition: partition.clone(), epoch, next_offset });
            }
        }
        for new in &new {
            self.announced.insert(new.partition.clone(), new.epoch);
            self.rewound.remove(&new.partition);
        }
        (!new.is_empty()).then_some(MemberEvent::Assigned(new))
    }

    /// Records of the next partition in turn that has some.
    fn fetch(&mut self, bounds: FetchBounds) -> Option<MemberEvent> {
        let after = |name: &TopicPartition| self.last_read.as_ref().is_none_or(|last| name > last);
        let mut readable = self.held.iter().filter(|(_, held)| !held.paused && !held.records.is_empty());
        let first = readable.clone().next();
        let (partition, _) = readable.find(|(name, _)| after(name)).or(first)?;
        let partition = partition.clone();
        let held = self.held.get_mut(&partition)?;
        let (mut records, mut bytes) = (Vec::new(), 0);
        while let Some(record) = held.records.front() {
            let size = size_bytes(record);
            let is_enough = records.len() >= bounds.records_max.max(1) || bytes + size > bounds.bytes_max;
            if is_enough && !records.is_empty() {
                break;
            }
            bytes += size;
            records.extend(held.records.pop_front());
        }
        let epoch = held.epoch;
        held.given = records.last().map_or(held.given, |record| record.position.offset + 1);
        self.records -= records.len();
        self.bytes -= bytes;
        self.last_read = Some(partition.clone());
        Some(MemberEvent::Records { partition, epoch, records })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn partition(index: i32) -> TopicPartition {
        TopicPartition::new("t", index)
    }

    fn record(index: i32, offset: i64) -> Record {
        let value = Some(vec![0u8; 10].into());
        Record { position: partition(index).at(offset), timestamp_ms: 0, key: None, value, headers: vec![] }
    }

    fn inbox() -> Inbox {
        Inbox::new(FetchBounds { records_max: 3, bytes_max: 1000 })
    }

    fn hold(inbox: &Inbox, index: i32, epoch: u64, start: i64) {
        inbox.hold(&[(partition(index), AssignmentEpoch(epoch), start)]);
        arrange(inbox);
    }

    /// What the polling thread does.
    fn arrange(inbox: &Inbox) {
        for (partition, wish) in inbox.wishes().1 {
            inbox.sought(&partition, wish);
        }
    }

    fn next(inbox: &Inbox) -> Option<MemberEvent> {
        inbox.next().now_or_never().map(|event| event.expect("no end"))
    }

    #[test]
    fn a_rewind_is_a_revocation_and_an_assignment() {
        let inbox = inbox();
        hold(&inbox, 0, 1, 5);
        assert!(matches!(next(&inbox), Some(MemberEvent::Assigned(new)) if new[0].next_offset == 5));
        inbox.push(&partition(0), record(0, 5));
        inbox.release(&[partition(0)], false);
        inbox.push(&partition(0), record(0, 6));
        hold(&inbox, 0, 2, 5);
        assert!(matches!(next(&inbox), Some(MemberEvent::Revoked { lost: false, .. })));
        assert!(matches!(next(&inbox), Some(MemberEvent::Assigned(new)) if new[0].epoch.0 == 2));
        assert_eq!(next(&inbox), None, "records of before are gone");
        inbox.push(&partition(0), record(0, 5));
        assert!(matches!(next(&inbox), Some(MemberEvent::Records { epoch, .. }) if epoch.0 == 2));
    }

    #[test]
    fn nothing_is_taken_until_the_consumer_is_where_it_should_be() {
        let inbox = inbox();
        inbox.hold(&[(partition(0), AssignmentEpoch(1), 3)]);
        inbox.push(&partition(0), record(0, 9));
        let (_, wishes) = inbox.wishes();
        inbox.hold(&[(partition(0), AssignmentEpoch(2), 4)]);
        inbox.sought(&partition(0), wishes[&partition(0)]);
        inbox.push(&partition(0), record(0, 3));
        assert!(matches!(next(&inbox), Some(MemberEvent::Assigned(new)) if new[0].epoch.0 == 2));
        assert_eq!(next(&inbox), None, "an older wish is not this one");
    }

    #[test]
    fn what_is_yielded_twice_is_given_once() {
        let inbox = inbox();
        hold(&inbox, 0, 1, 5);
        assert!(matches!(next(&inbox), Some(MemberEvent::Assigned(_))));
        for offset in [5, 6, 6, 5] {
            inbox.push(&partition(0), record(0, offset));
        }
        let offsets = |event| match event {
            Some(MemberEvent::Records { records, .. }) => {
                records.iter().map(|record| record.position.offset).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(offsets(next(&inbox)), [5, 6]);
        for offset in [6, 8] {
            inbox.push(&partition(0), record(0, offset));
        }
        assert_eq!(offsets(next(&inbox)), [8], "given, and yielded once more");
        // A log that was cut off behind us begins lower: it is taken from there.
        hold(&inbox, 0, 2, 9);
        assert!(matches!(next(&inbox), Some(MemberEvent::Revoked { .. })));
        assert!(matches!(next(&inbox), Some(MemberEvent::Assigned(_))));
        inbox.push(&partition(0), record(0, 3));
        assert_eq!(offsets(next(&inbox)), [3]);
    }

    #[test]
    fn a_pause_comes_back_for_what_it_threw_away() {
        let inbox = inbox();
        hold(&inbox, 0, 1, 0);
        assert!(matches!(next(&inbox), Some(MemberEvent::Assigned(_))));
        inbox.push(&partition(0), record(0, 0));
        inbox.pause(&[partition(0)]);
        inbox.push(&partition(0), record(0, 1));
        assert_eq!(next(&inbox), None);
        inbox.resume(&[partition(0)]);
        let wish = inbox.wishes().1[&partition(0)];
        assert_eq!((wish.paused, wish.seek), (false, Some(0)));
    }

    #[test]
    fn what_is_lost_is_told_apart() {
        let inbox = inbox();
        hold(&inbox, 0, 1, 0);
        hold(&inbox, 1, 2, 0);
        assert!(matches!(next(&inbox), Some(MemberEvent::Assigned(new)) if new.len() == 2));
        inbox.release(&[partition(0)], false);
        inbox.release(&[partition(1)], true);
        let gone = |event| match event {
            Some(MemberEvent::Revoked { partitions, lost }) => (partitions, lost),
            other => panic!("{other:?}"),
        };
        assert_eq!(gone(next(&inbox)), (vec![partition(1)], true));
        assert_eq!(gone(next(&inbox)), (vec![partition(0)], false));
    }

    #[test]
    fn what_goes_while_a_rewind_keeps_it_is_lost() {
        let inbox = inbox();
        let lost = || MemberEvent::Revoked { partitions: vec![partition(0)], lost: true };
        hold(&inbox, 0, 1, 0);
        assert!(matches!(next(&inbox), Some(MemberEvent::Assigned(_))));
        inbox.rewind(&[partition(0)]);
        assert!(matches!(next(&inbox), Some(MemberEvent::Revoked { lost: false, .. })));
        inbox.release(&[partition(0)], false);
        assert_eq!(next(&inbox), Some(lost()), "after the rewind was told");
        hold(&inbox, 0, 2, 0);
        assert!(matches!(next(&inbox), Some(MemberEvent::Assigned(_))));
        inbox.rewind(&[partition(0)]);
        inbox.release(&[partition(0)], false);
        assert_eq!((next(&inbox), next(&inbox)), (Some(lost()), None), "before it was");
        hold(&inbox, 0, 3, 0);
        assert!(matches!(next(&inbox), Some(MemberEvent::Assigned(_))));
        inbox.rewind(&[partition(0)]);
        hold(&inbox, 0, 4, 0);
        assert!(matches!(next(&inbox), Some(MemberEvent::Revoked { lost: false, .. })));
        assert!(matches!(next(&inbox), Some(MemberEvent::Assigned(_))));
        inbox.release(&[partition(0)], false);
        assert!(matches!(next(&inbox), Some(MemberEvent::Revoked { lost: false, .. })), "it had come back");
    }

    #[test]
    fn it_is_full_and_has_room_again() {
        let inbox = inbox();
        hold(&inbox, 0, 1, 0);
        for offset in 0..12 {
            assert!(!inbox.is_full());
            inbox.push(&partition(0), record(0, offset));
        }
        assert!(inbox.is_full() && !inbox.has_room());
        let seen = inbox.wish_count();
        assert!(!inbox.wait_for_room(Duration::from_millis(1), seen));
        assert!(matches!(next(&inbox), Some(MemberEvent::Assigned(_))));
        for _ in 0..3 {
            assert!(matches!(next(&inbox), Some(MemberEvent::Records { records, .. }) if records.len() == 3));
        }
        assert!(inbox.has_room());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Hold(i32),
        Release(i32, bool),
        Rewind(i32),
        Yield(i32),
        Pause(i32),
        Resume(i32),
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3).prop_map(Step::Hold),
            (0..3, any::<bool>()).prop_map(|(index, lost)| Step::Release(index, lost)),
            (0..3).prop_map(Step::Rewind),
            (0..3).prop_map(Step::Yield),
            (0..3).prop_map(Step::Yield),
            (0..3).prop_map(Step::Pause),
            (0..3).prop_map(Step::Resume),
            Just(Step::Take),
            Just(Step::Take),
        ]
    }

    proptest! {
        /// The trait's rules, whatever happens: records only of what is announced, from where it was announced, in
        /// order and without a hole. The consumer is a model: it yields every offset after the place it was set to.
        #[test]
        fn records_have_no_hole(steps in proptest::collection::vec(step(), 1..200)) {
            let inbox = inbox();
            let mut position = [0i64; 3];
            let mut epoch = 0;
            let mut owned: BTreeMap<TopicPartition, (AssignmentEpoch, i64)> = BTreeMap::new();
            let mut rewound: BTreeSet<TopicPartition> = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Hold(index) => {
                        epoch += 1;
                        inbox.hold(&[(partition(index), AssignmentEpoch(epoch), i64::from(index) * 100)]);
                    }
                    Step::Release(index, lost) => inbox.release(&[partition(index)], lost),
                    Step::Rewind(index) => {
                        // Only what is held is sent back.
                        if inbox.wishes().1.contains_key(&partition(index)) {
                            inbox.rewind(&[partition(index)]);
                        }
                    }
                    Step::Pause(index) => inbox.pause(&[partition(index)]),
                    Step::Resume(index) => inbox.resume(&[partition(index)]),
                    Step::Yield(index) => {
                        let here = &mut position[usize::try_from(index).expect("small")];
                        inbox.push(&partition(index), record(index, *here));
                        *here += 1;
                        for (partition, wish) in inbox.wishes().1 {
                            if let Some(offset) = wish.seek.filter(|_| !wish.paused) {
                                position[usize::try_from(partition.partition).expect("small")] = offset;
                                inbox.sought(&partition, wish);
                            }
                        }
                    }
                    Step::Take => match next(&inbox) {
                        None => {}
                        Some(MemberEvent::Assigned(new)) => for new in new {
                            prop_assert_eq!(owned.insert(new.partition, (new.epoch, new.next_offset)), None);
                        },
                        Some(MemberEvent::Revoked { partitions, lost }) => for partition in partitions {
                            let was_announced = owned.remove(&partition).is_some();
                            prop_assert!(was_announced || lost && rewound.contains(&partition));
                            rewound.insert(partition);
                        },
                        Some(MemberEvent::Records { partition, epoch, records }) => {
                            let (owned_epoch, next_offset) = owned.get_mut(&partition).expect("announced");
                            prop_assert_eq!(*owned_epoch, epoch);
                            for record in records {
                                prop_assert_eq!(record.position.offset, *next_offset);
                                *next_offset += 1;
                            }
                        }
                    },
                }
            }
        }
    }
}
