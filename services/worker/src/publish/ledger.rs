//! What is in flight, what is ready, and what goes into the next transaction. Pure: no clock, no I/O.

use std::collections::{BTreeMap, VecDeque};

use forensics::Lane;
use stream::offsets::{InFlight, OffsetsError};
use stream::{Assignment, AssignmentEpoch, CommitOffset, TopicPartition, Transaction};

use crate::clerk::Written;

/// What the intake and the jobs tell the publisher. The intake's notes are in order; a job's note follows the
/// one that started it.
pub(crate) enum Note {
    /// Partitions are ours.
    Assigned(Vec<Assignment>),
    /// They are not any more, nor will be if they are lost.
    Revoked { partitions: Vec<TopicPartition>, lost: bool },
    /// These records were taken in, in order.
    Started { partition: TopicPartition, epoch: AssignmentEpoch, lane: Lane, records: Vec<Begun> },
    /// One of them has its outcome.
    Finished { partition: TopicPartition, epoch: AssignmentEpoch, offset: i64, written: Box<Written> },
}

/// A record that was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) offset: i64,
    /// When its producer wrote it, in milliseconds since 1970.
    pub(crate) written_ms: i64,
}

/// Every partition of the member.
#[derive(Default)]
pub(crate) struct Ledger {
    partitions: BTreeMap<TopicPartition, Partition>,
    ready: Ready,
    /// Whose turn it was last, so that a busy partition does not starve the others.
    last: Option<TopicPartition>,
    /// What was given up and comes again, if the partition does.
    owed: BTreeMap<TopicPartition, Owed>,
}

struct Partition {
    epoch: AssignmentEpoch,
    running: InFlight<Box<Written>>,
    /// The finished prefix, oldest first.
    ready: VecDeque<(i64, Box<Written>)>,
    /// What was taken in and is not committed, oldest first.
    uncommitted: VecDeque<Begun>,
    /// The lane of its topic, once a record came.
    lane: Option<Lane>,
    /// Until it has come again.
    owed: Option<Owed>,
}

/// The oldest record of a partition that was taken in and given up: an outage makes nothing younger.
#[derive(Debug, Clone, Copy)]
struct Owed {
    lane: Lane,
    record: Begun,
}

/// How much could be committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) outcomes: usize,
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    /// Outcomes that somebody waits for.
    pub(crate) live: usize,
}

/// Bounds of one transaction. One outcome is always taken, however large.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) records_max: usize,
    pub(crate) bytes_max: usize,
}

/// What goes into one transaction.
#[derive(Default)]
pub(crate) struct Parcel {
    pub(crate) parts: Vec<Part>,
}

/// The outcomes of one partition, a prefix of what is in flight there.
pub(crate) struct Part {
    pub(crate) partition: TopicPartition,
    pub(crate) epoch: AssignmentEpoch,
    pub(crate) outcomes: Vec<Written>,
    pub(crate) next_offset: i64,
}

impl Ledger {
    /// Takes a note. Notes about older assignments are out of date and change nothing.
    pub(crate) fn apply(&mut self, note: Note) -> Result<(), OffsetsError> {
        match note {
            Note::Assigned(assigned) => {
                for Assignment { partition, epoch, next_offset } in assigned {
                    self.forget(&partition);
                    // Unless the log had taken it after all.
                    let owed = self.owed.remove(&partition).filter(|owed| owed.record.offset >= next_offset);
                    self.partitions.insert(partition, Partition::new(epoch, owed));
                }
                // What a rewind gives back it gives back at once: the rest went elsewhere.
                self.owed.clear();
            }
            Note::Revoked { partitions, lost } => {
                for partition in &partitions {
                    self.forget(partition);
                    if lost {
                        self.owed.remove(partition);
                    }
                }
            }
            Note::Started { partition, epoch, lane, records } => {
                if let Some(held) = self.held(&partition, epoch) {
                    held.lane = Some(lane);
                    held.owed = None;
                    records.iter().try_for_each(|record| held.running.start(record.offset))?;
                    held.uncommitted.extend(records);
                }
            }
            Note::Finished { partition, epoch, offset, written } => {
                let Some(held) = self.held(&partition, epoch) else { return Ok(()) };
                held.running.finish(offset, written)?;
                let Some(prefix) = held.running.take_finished_prefix(usize::MAX) else { return Ok(()) };
                let mut added = Ready::default();
                for (offset, written) in prefix.outcomes {
                    added.add(&written);
                    held.ready.push_back((offset, written));
                }
                self.ready.join(added);
            }
        }
        Ok(())
    }

    /// How much could be committed.
    pub(crate) fn ready(&self) -> Ready {
        self.ready
    }

    /// Nothing that was taken in is without an outcome.
    pub(crate) fn is_idle(&self) -> bool {
        self.partitions.values().all(|partition| partition.running.is_empty())
    }

    /// Takes out what goes into the next transaction: of each partition a prefix.
    pub(crate) fn select(&mut self, bounds: Bounds) -> Parcel {
        let mut order: Vec<TopicPartition> = self.partitions.keys().cloned().collect();
        let start = self.last.as_ref().map_or(0, |last| order.partition_point(|partition| partition <= last));
        let length = order.len().max(1);
        order.rotate_left(start % length);
        let mut parcel = Parcel::default();
        let mut taken = Ready::default();
        for partition in order {
            let Some(held) = self.partitions.get_mut(&partition) else { continue };
            let mut outcomes = Vec::new();
            let mut next_offset = 0;
            while let Some((offset, written)) = held.ready.front() {
                if taken.outcomes > 0 && !taken.has_room_for(written, bounds) {
                    break;
                }
                taken.add(written);
                next_offset = offset + 1;
                outcomes.extend(held.ready.pop_front().map(|(_, written)| *written));
            }
            if !outcomes.is_empty() {
                self.last = Some(partition.clone());
                parcel.parts.push(Part { partition, epoch: held.epoch, outcomes, next_offset });
            }
        }
        self.ready.leave(taken);
        parcel
    }

    /// A part of a parcel is committed.
    pub(crate) fn committed(&mut self, part: &Part) {
        let Some(held) = self.held(&part.partition, part.epoch) else { return };
        let done = held.uncommitted.partition_point(|record| record.offset < part.next_offset);
        held.uncommitted.drain(..done);
    }

    /// When the oldest record of a lane that is not committed was written, in milliseconds since 1970.
    pub(crate) fn oldest(&self, lane: Lane) -> Option<i64> {
        let of_lane = self.partitions.values().filter(|held| held.lane == Some(lane));
        let taken_in = of_lane.filter_map(|held| held.uncommitted.front());
        let owed = self.owed.values().chain(self.partitions.values().filter_map(|held| held.owed.as_ref()));
        let owed = owed.filter(|owed| owed.lane == lane).map(|owed| &owed.record);
        taken_in.chain(owed).map(|record| record.written_ms).min()
    }

    /// Gives everything up: the member rewinds, and all of it will be taken in again.
    pub(crate) fn give_up(&mut self) {
        for (partition, held) in std::mem::take(&mut self.partitions) {
            self.owed.extend(held.oldest().map(|owed| (partition, owed)));
        }
        self.ready = Ready::default();
    }

    /// Gives up a partition, if it is still held under this epoch.
    pub(crate) fn give_up_partition(&mut self, partition: &TopicPartition, epoch: AssignmentEpoch) {
        if self.held(partition, epoch).is_some() {
            self.forget(partition);
        }
    }

    fn held(&mut self, partition: &TopicPartition, epoch: AssignmentEpoch) -> Option<&mut Partition> {
        self.partitions.get_mut(partition).filter(|held| held.epoch == epoch)
    }

    fn forget(&mut self, partition: &TopicPartition) {
        let Some(held) = self.partitions.remove(partition) else { return };
        let mut gone = Ready::default();
        held.ready.iter().for_each(|(_, written)| gone.add(written));
        self.ready.leave(gone);
    }
}

impl Partition {
    fn new(epoch: AssignmentEpoch, owed: Option<Owed>) -> Self {
        let (ready, uncommitted) = (VecDeque::new(), VecDeque::new());
        Self { epoch, running: InFlight::new(), ready, uncommitted, lane: None, owed }
    }

    /// The oldest record that is not committed.
    fn oldest(&self) -> Option<Owed> {
        let taken_in = self.lane.zip(self.uncommitted.front());
        taken_in.map(|(lane, record)| Owed { lane, record: *record }).or(self.owed)
    }
}

impl Ready {
    fn add(&mut self, written: &Written) {
        self.outcomes += 1;
        self.records += written.records.len();
        self.bytes += written.bytes;
        self.live += usize::from(written.tally.lane == Lane::Live);
    }

    fn has_room_for(&self, written: &Written, bounds: Bounds) -> bool {
        self.records + written.records.len() <= bounds.records_max
            && self.bytes + written.bytes <= bounds.bytes_max
    }

    fn join(&mut self, other: Self) {
        self.outcomes += other.outcomes;
        self.records += other.records;
        self.bytes += other.bytes;
        self.live += other.live;
    }

    fn leave(&mut self, other: Self) {
        self.outcomes -= other.outcomes;
        self.records -= other.records;
        self.bytes -= other.bytes;
        self.live -= other.live;
    }
}

impl Parcel {
    /// The transaction: outcome records and the offsets that they cover.
    pub(crate) fn transaction(&self) -> Transaction {
        Transaction {
            records: self
                .parts
                .iter()
                .flat_map(|part| &part.outcomes)
                .flat_map(|w| w.records.clone())
                .collect(),
            offsets: self
                .parts
                .iter()
                .map(|part| CommitOffset {
                    partition: part.partition.clone(),
                    epoch: part.epoch,
                    next_offset: part.next_offset,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
