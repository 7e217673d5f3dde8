//! The committing thread of a member: transactions block, so they have a thread of their own. Between them it finds
//! out where partitions start that the group has given, or that a rewind sent back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::oneshot;

use super::Core;
use super::config::Delivery;
use super::error::{Doing, told};
use super::member::Shared;
use super::orders::Order;
use super::ownership::{Ownership, Refusal, Standing};
use super::polling::{MemberConsumer, told_offset};
use super::records::{Row, list, offset_list};
use super::transactor::{Attempt, Moves, Transactor};
use crate::error::{Disposition, StreamError};
use crate::member::{AbortReason, Commit, CommitOffset, StartAt, Transaction};
use crate::metrics::Metrics;
use crate::record::TopicPartition;

/// What could not be done is tried again after so long.
const AGAIN: Duration = Duration::from_millis(200);
/// So long committed offsets are waited for at once: a transaction that comes meanwhile waits for it too. Somebody
/// else's open transaction may hold them back for longer, and then they are asked for again.
const OFFSETS: Duration = Duration::from_millis(500);
/// As [`OFFSETS`], for the ends of a partition.
const WATERMARKS: Duration = Duration::from_secs(2);
/// A transaction that the group refused for its generation is tried again with fresh metadata, after these pauses, in
/// milliseconds. The broker raises a member's epoch before the member hears of it: until the answer to its heartbeat has
/// come, the freshest metadata is too old, and nothing is wrong. On a busy machine that takes seconds (measured 1.1 s,
/// 2026-11-27).
const PAUSES: [u64; 10] = [50, 100, 200, 400, 800, 800, 800, 800, 800, 800];
/// After so long there is no other pause. Longer than it takes until a heartbeat that was lost is sent again: 5 s.
const PATIENCE: Duration = Duration::from_secs(6);

/// The committing thread.
pub(crate) struct Committing {
    core: Arc<Core>,
    shared: Arc<Shared>,
    consumer: Arc<MemberConsumer>,
    transactor: Option<Transactor>,
    /// Why there is no instance, since it was last tried to make one.
    without: Option<StreamError>,
    /// Where this member began in partitions of which the group has committed nothing: a rewind comes back there.
    starts: BTreeMap<TopicPartition, i64>,
}

/// Says that the thread has let go of everything, also when it panicked.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Or the intake would read on, and nothing of it would ever be committed.
            self.0.inbox.end(StreamError::Closed { what: "the committing thread".to_owned() });
        }
        self.0.orders.set_ended();
    }
}

impl Committing {
    pub(crate) fn new(
        core: Arc<Core>,
        shared: Arc<Shared>,
        consumer: Arc<MemberConsumer>,
        transactor: Transactor,
    ) -> Self {
        Self { core, shared, consumer, transactor: Some(transactor), without: None, starts: BTreeMap::new() }
    }

    /// Works until it is told to end.
    pub(crate) fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.shared));
        loop {
            let is_behind = self.catch_up();
            match self.shared.orders.next(is_behind.then_some(AGAIN)) {
                Order::Commit(transaction, reply) => self.commit(transaction, reply),
                Order::Look => {}
                Order::End => break,
            }
        }
        let owned = self.shared.ownership().leave();
        self.shared.inbox.release(&owned, false);
        // The thread's end frees the producer and lets go of the consumer, before `_ending` says so.
        drop(self);
    }

    /// Renews the instance if it must be, and settles what waits; true when something of it has to be tried again.
    fn catch_up(&mut self) -> bool {
        if matches!(self.shared.ownership().standing(), Standing::Fenced(_) | Standing::Left) {
            return false;
        }
        if self.transactor.is_none() && !self.renew() {
            return !matches!(self.shared.ownership().standing(), Standing::Fenced(_));
        }
        let settled = self.settle();
        if let Err(error) = &settled {
            tracing::debug!(group = &*self.shared.membership.group, "offsets are not known yet: {error}");
        }
        settled.is_err()
    }

    /// A new instance in the place of one that was dropped. What the old one left behind is ended by it.
    fn renew(&mut self) -> bool {
        let patience = self.core.config().transaction_timeout;
        match self.core.transactor(&self.shared.membership.slot, patience) {
            Ok(transactor) => {
                self.transactor = Some(transactor);
                self.without = None;
                true
            }
            Err(StreamError::Fenced { why, .. }) => {
                self.shared.fence(&mut self.shared.ownership(), &why);
                false
            }
            Err(error) => {
                tracing::warn!(slot = &*self.shared.membership.slot, "no new producer yet: {error}");
                if error.disposition() == Disposition::Fatal {
                    // Nothing is given to the intake without a producer, so no commit would ever tell.
                    self.shared.inbox.end(error.clone());
                }
                self.without = Some(error);
                false
            }
        }
    }

    /// Finds out where the waiting partitions start, and gives them to the intake.
    fn settle(&mut self) -> Result<(), StreamError> {
        let waiting = self.shared.ownership().waiting();
        if waiting.is_empty() {
            return Ok(());
        }
        let group = Arc::clone(&self.shared.membership.group);
        let failed = |error: &KafkaError| told(Doing::Group(&group), error);
        let asked = list(waiting.iter().map(|(partition, _)| partition));
        let answered = self.consumer.committed_offsets(asked, OFFSETS).map_err(|error| failed(&error))?;
        let mut starts = Vec::with_capacity(waiting.len());
        for (partition, ticket) in waiting {
            let entry = answered.find_partition(&partition.topic, partition.partition);
            let committed = match entry.map(|entry| (entry.error(), told_offset(entry.offset()))) {
                Some((Ok(()), committed)) => committed,
                Some((Err(error), _)) => return Err(failed(&error)),
                None => None,
            };
            let start = match committed {
                Some(offset) => offset,
                None => self.first_start(&partition)?,
            };
            starts.push((partition, ticket, committed, start));
        }
        let mut ownership = self.shared.ownership();
        let mut settled = Vec::with_capacity(starts.len());
        for (partition, ticket, committed, start) in starts {
            if let Some(epoch) = ownership.settle(&partition, ticket, committed) {
                settled.push((partition, epoch, start));
            }
        }
        tracing::debug!(group = &*group, ?settled, "partitions are settled");
        self.shared.inbox.hold(&settled);
        Ok(())
    }

    /// Where a partition starts of which the group has committed nothing.
    fn first_start(&mut self, partition: &TopicPartition) -> Result<i64, StreamError> {
        if let Some(start) = self.starts.get(partition) {
            return Ok(*start);
        }
        let (low, high) = self
            .consumer
            .fetch_watermarks(&partition.topic, partition.partition, WATERMARKS)
            .map_err(|error| told(Doing::Reading(&partition.topic), &error))?;
        let start = match self.shared.membership.start {
            StartAt::Earliest => low,
            StartAt::Latest => high,
        };
        self.starts.insert(partition.clone(), start);
        Ok(start)
    }

    fn commit(&mut self, transaction: Transaction, reply: oneshot::Sender<Commit>) {
        let commit = self.decide(transaction);
        // The publisher may have gone: then nobody wants the answer.
        drop(reply.send(commit));
    }

    fn decide(&mut self, mut transaction: Transaction) -> Commit {
        if self.transactor.as_ref().is_some_and(Transactor::is_shaken) {
            self.transactor = None;
        }
        if self.transactor.is_none() && !self.is_out() {
            self.renew();
        }
        let records = std::mem::take(&mut transaction.records);
        let rows = self.core.place(records);
        let shared = Arc::clone(&self.shared);
        // From here to the answer nobody changes who owns what.
        let mut ownership = shared.ownership();
        if *ownership.standing() != Standing::Member {
            let partitions = transaction.offsets.into_iter().map(|offset| offset.partition).collect();
            return self.out(&ownership, partitions);
        }
        let attempted = match (shared.check(&ownership, &transaction), rows) {
            (Err(Refusal::Stale(partitions)), _) => {
                return Commit::Aborted { reason: AbortReason::StaleEpoch { partitions } };
            }
            (Err(Refusal::Rewound(partitions)), _) => {
                return Commit::Aborted { reason: AbortReason::Rewound { partitions } };
            }
            (Err(Refusal::Invalid(why)), _) => Attempt::Aborted(StreamError::Invalid { why }),
            (Ok(()), Err(error)) => Attempt::Aborted(error),
            (Ok(()), Ok(rows)) => {
                let attempted = self.attempt(&rows, &transaction.offsets);
                if let Attempt::Committed(offsets) = attempted {
                    ownership.committed(&transaction.offsets);
                    let positions = rows.iter().zip(offsets).map(|(row, offset)| row.at(offset)).collect();
                    return Commit::Committed { positions };
                }
                attempted
            }
        };
        self.give_up(&mut ownership, attempted, &transaction.offsets)
    }

    fn is_out(&self) -> bool {
        matches!(self.shared.ownership().standing(), Standing::Fenced(_) | Standing::Left)
    }

    fn out(&self, ownership: &Ownership, partitions: Vec<TopicPartition>) -> Commit {
        match ownership.standing() {
            Standing::Adrift if partitions.is_empty() => {
                let why = format!("group {} does not know this member", self.shared.membership.group);
                Commit::Aborted { reason: AbortReason::Failed(StreamError::Unavailable { why }) }
            }
            standing => self.shared.no_member(standing, partitions),
        }
    }

    /// The transaction did not happen, or nobody knows: what that means for what this member owns.
    fn give_up(&mut self, ownership: &mut Ownership, attempt: Attempt, offsets: &[CommitOffset]) -> Commit {
        let rewind = |ownership: &mut Ownership| {
            self.shared.inbox.rewind(&ownership.rewind());
        };
        match attempt {
            Attempt::Committed(_) => unreachable!("a committed transaction is not given up"),
            Attempt::Aborted(error) => {
                rewind(ownership);
                Commit::Aborted { reason: AbortReason::Failed(error) }
            }
            Attempt::Broken(error) => {
                rewind(ownership);
                self.transactor = None;
                Commit::Aborted { reason: AbortReason::Failed(error) }
            }
            Attempt::Unknown(reason) => {
                rewind(ownership);
                self.transactor = None;
                Commit::Unknown { reason }
            }
            Attempt::GroupFenced(why) | Attempt::OldGeneration(why) => {
                let group = &*self.shared.membership.group;
                tracing::warn!(group, "the group does not know this member any more: {why}");
                let owned = ownership.go_adrift();
                self.shared.inbox.release(&owned, true);
                let partitions = offsets.iter().map(|offset| offset.partition.clone()).collect();
                Commit::Aborted { reason: AbortReason::StaleEpoch { partitions } }
            }
            Attempt::Fenced(reason) => {
                self.shared.fence(ownership, &reason);
                self.transactor = None;
                Commit::Fenced { reason }
            }
        }
    }

    fn attempt(&mut self, rows: &[Row], offsets: &[CommitOffset]) -> Attempt {
        let Some(transactor) = &self.transactor else {
            let unknown = || StreamError::Unavailable {
                why: format!("slot {} has no producer", self.shared.membership.slot),
            };
            return Attempt::Broken(self.without.clone().unwrap_or_else(unknown));
        };
        let moved = || offset_list(offsets.iter().map(|offset| (&offset.partition, offset.next_offset)));
        match self.core.config().delivery {
            Delivery::AtLeastOnce => self.attempt_at_least_once(transactor, rows, &moved()),
            Delivery::ExactlyOnce if offsets.is_empty() => transactor.transact(rows, None),
            Delivery::ExactlyOnce => {
                let is_shaken = || transactor.is_shaken();
                while_generation_is_old(&self.shared.metrics, &PAUSES, is_shaken, || {
                    match self.consumer.group_metadata() {
                        // No membership, nothing to commit.
                        None => Attempt::GroupFenced("this consumer is in no group".to_owned()),
                        Some(_) if self.consumer.assignment_lost() => lost(),
                        Some(metadata) => {
                            let group = Arc::clone(&self.shared.membership.group);
                            transactor.transact(rows, Some(&Moves { group, offsets: moved(), metadata }))
                        }
                    }
                })
            }
        }
    }

    /// Records first, offsets when all of them are acknowledged. What was written stays written, whatever follows.
    fn attempt_at_least_once(
        &self,
        transactor: &Transactor,
        rows: &[Row],
        offsets: &TopicPartitionList,
    ) -> Attempt {
        let written = match transactor.write(rows) {
            Ok(written) => written,
            Err(error) => return Attempt::Broken(error),
        };
        self.core.failpoints().reach("before-commit");
        if offsets.count() > 0 {
            // A commit of offsets that arrives twice is no worse than once.
            let moved = while_generation_is_old(
                &self.shared.metrics,
                &PAUSES,
                || false,
                || match self.consumer.commit(offsets, CommitMode::Sync) {
                    Ok(()) => Attempt::Committed(Vec::new()),
                    Err(_) if self.consumer.assignment_lost() => lost(),
                    Err(error) => Attempt::refused(&error, error.to_string())
                        .unwrap_or_else(|| Attempt::Unknown(format!("offsets were not committed: {error}"))),
                },
            );
            if !matches!(moved, Attempt::Committed(_)) {
                return moved;
            }
        }
        self.core.failpoints().reach("after-commit");
        Attempt::Committed(written)
    }
}

/// The group has given this member up, and the callback that tells so waits for the lock: until it has run there is no other
/// generation to wait for.
fn lost() -> Attempt {
    Attempt::GroupFenced("the assignment was lost".to_owned())
}

/// Attempts again while the group refuses the generation, but never on an instance that has lost a connection meanwhile:
/// the abort of the attempt before may have been sent twice then, and its second copy would end the next attempt half-way.
fn while_generation_is_old(
    metrics: &Metrics,
    pauses: &[u64],
    is_shaken: impl Fn() -> bool,
    mut attempt: impl FnMut() -> Attempt,
) -> Attempt {
    let began = Instant::now();
    let mut pauses = pauses.iter().map(|pause| Duration::from_millis(*pause));
    loop {
        let attempted = attempt();
        if matches!(attempted, Attempt::GroupFenced(_) | Attempt::OldGeneration(_)) {
            metrics.refused_attempt();
        }
        let Attempt::OldGeneration(why) = &attempted else { return attempted };
        // Attempts that take their time leave none for more: somebody may wait for the lock.
        let pause = pauses.next().filter(|_| began.elapsed() < PATIENCE);
        pause.into_iter().for_each(std::thread::sleep);
        // After the pause: a loss is told by another thread.
        if is_shaken() {
            let why = format!("a connection was lost while the group refused a transaction: {why}");
            return Attempt::Broken(StreamError::Unavailable { why });
        }
        if pause.is_none() {
            return attempted;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use prometheus::Registry;

    use super::*;

    /// How often it was attempted with two pauses at most, and how that ended, when the group refuses the first attempts,
    /// and a connection is lost within the attempts of these numbers.
    fn attempts(refused: usize, lost: &[usize]) -> (usize, Attempt) {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let (count, is_shaken) = (Cell::new(0), Cell::new(false));
        let ended = while_generation_is_old(
            &metrics,
            &[0; 2],
            || is_shaken.take(),
            || {
                count.set(count.get() + 1);
                is_shaken.set(is_shaken.get() || lost.contains(&count.get()));
                if count.get() <= refused {
                    Attempt::OldGeneration("an older generation".to_owned())
                } else {
                    Attempt::Committed(Vec::new())
                }
            },
        );
        let families = registry.gather();
        let told = families.iter().find(|family| family.name() == "touchstone_stream_refused_attempts_total");
        let told = told.unwrap().get_metric()[0].get_counter().get_value();
        assert_eq!(told, count.get().min(refused) as f64, "each refusal is counted");
        (count.get(), ended)
    }

    #[test]
    fn a_refused_transaction_is_tried_again_on_a_sound_instance_only() {
        assert!(matches!(attempts(0, &[1]), (1, Attempt::Committed(_))));
        assert!(matches!(attempts(2, &[]), (3, Attempt::Committed(_))));
        assert!(matches!(attempts(9, &[]), (3, Attempt::OldGeneration(_))));
        assert!(matches!(attempts(2, &[1]), (1, Attempt::Broken(StreamError::Unavailable { .. }))));
        assert!(matches!(attempts(9, &[2]), (2, Attempt::Broken(_))));
    }

    #[test]
    fn whom_the_group_does_not_know_does_not_try_again() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let unknown = || Attempt::GroupFenced("an unknown member".to_owned());
        let mut answers = std::iter::once(unknown());
        let ended =
            while_generation_is_old(&metrics, &PAUSES, || false, || answers.next().expect("one attempt"));
        assert!(matches!(ended, Attempt::GroupFenced(_)));
    }
}
