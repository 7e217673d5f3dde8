//! What the intake has in hand: its partitions, and records that wait for room. Sync; no I/O.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use forensics::Lane;
use stream::{Assignment, AssignmentEpoch, TopicPartition};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;

/// A record that waits for room.
pub(super) struct Pending {
    pub(super) admission: Admission,
    /// Cancelled when its partition goes elsewhere.
    pub(super) revoked: CancellationToken,
}

impl Pending {
    /// Whether it needs a job of its own.
    pub(super) fn is_job(&self) -> bool {
        matches!(self.admission, Admission::Examine(_))
    }

    /// Bytes of its record.
    pub(super) fn bytes(&self) -> usize {
        match &self.admission {
            Admission::Examine(job) => job.input.bytes(),
            Admission::DeadLetter { input, .. } | Admission::Refused { input, .. } => input.bytes(),
        }
    }
}

/// The intake's state.
pub(super) struct Hand {
    held: BTreeMap<TopicPartition, (AssignmentEpoch, CancellationToken)>,
    /// In order of arrival, most urgent lane first. Within a partition, which is of one lane, the order stays
    /// that of the offsets: what runs at a drain is a prefix of what was taken in, and none of it is lost.
    lanes: [VecDeque<Pending>; Lane::ALL.len()],
    /// With fewer than so many in hand it is time to fetch more.
    low_water: usize,
    pause_after: Duration,
    /// Since when there is no room.
    blocked_since: Option<Instant>,
    paused: bool,
}

impl Hand {
    pub(super) fn new(low_water: usize, pause_after: Duration) -> Self {
        Self {
            held: BTreeMap::new(),
            lanes: Default::default(),
            low_water: low_water.max(1),
            pause_after,
            blocked_since: None,
            paused: false,
        }
    }

    /// These partitions are ours now.
    pub(super) fn assign(&mut self, assigned: &[Assignment]) {
        for Assignment { partition, epoch, .. } in assigned {
            self.revoke(std::slice::from_ref(partition));
            self.held.insert(partition.clone(), (*epoch, CancellationToken::new()));
        }
    }

    /// These are not any more: their jobs are cancelled, their records forgotten.
    pub(super) fn revoke(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            if let Some((_, token)) = self.held.remove(partition) {
                token.cancel();
            }
        }
        for lane in &mut self.lanes {
            lane.retain(|pending| !pending.revoked.is_cancelled());
        }
    }

    /// What cancels the jobs of this assignment; `None` when it is not the current one.
    pub(super) fn token(
        &self,
        partition: &TopicPartition,
        epoch: AssignmentEpoch,
    ) -> Option<CancellationToken> {
        self.held.get(partition).filter(|(held, _)| *held == epoch).map(|(_, token)| token.clone())
    }

    pub(super) fn push(&mut self, lane: Lane, pending: Pending) {
        self.lanes[lane as usize].push_back(pending);
    }

    /// The head of the queue.
    pub(super) fn next(&self) -> Option<&Pending> {
        self.lanes.iter().find_map(VecDeque::front)
    }

    pub(super) fn pop(&mut self) -> Option<Pending> {
        self.lanes.iter_mut().find_map(VecDeque::pop_front)
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    /// The partitions in hand.
    pub(super) fn partitions(&self) -> Vec<TopicPartition> {
        self.held.keys().cloned().collect()
    }

    /// Whether to ask the member for more. Once paused it gives changes of ownership only.
    pub(super) fn listens(&self, breaker_open: bool) -> bool {
        self.paused || !self.is_blocked(breaker_open)
    }

    /// When to pause, unless there is room before.
    pub(super) fn pause_at(&self) -> Option<Instant> {
        self.blocked_since.filter(|_| !self.paused).map(|since| since + self.pause_after)
    }

    /// The partitions to pause.
    pub(super) fn pause(&mut self) -> Vec<TopicPartition> {
        self.paused = true;
        self.partitions()
    }

    /// Whether the partitions are paused; one that is assigned meanwhile has to be paused too.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Notes whether there is room; the partitions to resume, if there is some again.
    pub(super) fn flow(&mut self, breaker_open: bool, now: Instant) -> Option<Vec<TopicPartition>> {
        if self.is_blocked(breaker_open) {
            self.blocked_since.get_or_insert(now);
            return None;
        }
        self.blocked_since = None;
        std::mem::take(&mut self.paused).then(|| self.partitions())
    }

    fn is_blocked(&self, breaker_open: bool) -> bool {
        breaker_open || self.len() >= self.low_water
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use stream::{Position, Record};

    use super::*;
    use crate::job::Input;

    const SECOND: Duration = Duration::from_secs(1);

    fn partition(index: i32) -> TopicPartition {
        TopicPartition::new("t", index)
    }

    fn take(hand: &mut Hand, index: i32, lane: Lane, offset: i64) {
        let (partition, epoch) = (partition(index), AssignmentEpoch(1));
        let revoked = hand.token(&partition, epoch).expect("assigned");
        let record = Record {
            position: Position::new("t", index, offset),
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: vec![],
        };
        let taken_in_at = SystemTime::UNIX_EPOCH;
        let input = Input { partition, epoch, record, lane, attempt: 1, taken_in_at };
        hand.push(lane, Pending { admission: Admission::DeadLetter { input, why: String::new() }, revoked });
    }

    fn assignment(index: i32) -> Assignment {
        Assignment { partition: partition(index), epoch: AssignmentEpoch(1), next_offset: 0 }
    }

    fn offset(pending: Option<Pending>) -> Option<i64> {
        match pending?.admission {
            Admission::DeadLetter { input, .. } => Some(input.record.position.offset),
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_only_after_a_while_and_resumes_when_there_is_room() {
        let mut hand = Hand::new(2, SECOND);
        hand.assign(&[assignment(0)]);
        let now = Instant::now();
        assert!(hand.listens(false) && hand.flow(false, now).is_none() && hand.pause_at().is_none());
        take(&mut hand, 0, Lane::Bulk, 1);
        take(&mut hand, 0, Lane::Bulk, 2);
        assert!(hand.flow(false, now).is_none() && !hand.listens(false), "in hand: enough");
        assert_eq!(hand.pause_at(), Some(now + SECOND));
        hand.flow(false, now + SECOND / 2);
        assert_eq!(hand.pause_at(), Some(now + SECOND), "the clock runs from the beginning");
        assert_eq!(hand.pause(), [partition(0)]);
        assert!(hand.listens(false), "paused: it hears of changes of ownership");
        assert_eq!((hand.pause_at(), offset(hand.pop())), (None, Some(1)));
        assert_eq!(hand.flow(false, now), Some(vec![partition(0)]));
        assert!(!hand.listens(true), "a store in trouble is no room either");
    }

    #[test]
    fn live_goes_first_and_revoked_records_are_forgotten() {
        let mut hand = Hand::new(8, SECOND);
        hand.assign(&[assignment(0), assignment(1)]);
        take(&mut hand, 0, Lane::Bulk, 5);
        take(&mut hand, 1, Lane::Live, 7);
        take(&mut hand, 0, Lane::Bulk, 6);
        let token = hand.token(&partition(0), AssignmentEpoch(1)).unwrap();
        assert_eq!(offset(hand.pop()), Some(7));
        hand.revoke(&[partition(0)]);
        assert!(token.is_cancelled() && hand.next().is_none());
        assert!(hand.token(&partition(0), AssignmentEpoch(1)).is_none());
        assert!(hand.token(&partition(1), AssignmentEpoch(2)).is_none(), "another epoch");
    }
}
