//! The polling thread of a member: the only one that polls its consumer, and so the one that the rebalance
//! callback runs in. It never waits for work: when the inbox is full for a second, it pauses and polls on.
//!
//! A partition that the group gives is not handed to librdkafka at once: where it starts is not known yet, and
//! finding out may take as long as somebody's open transaction. The callback notes it and returns; once the committing
//! thread has settled its offset it is assigned from there. What is assigned already is moved by seeking, never by
//! taking it away: giving partitions back outside of the callback would tell the group that the callback had run.
//!
//! An assignment outside of the callback has a trap of its own (librdkafka 2.12, and 2.15 as well). At each rebalance
//! librdkafka pauses what is assigned, with a flag of its own, and any assignment that it is told of while it waits for the
//! callback counts as the callback's answer, and lifts that pause. It lifts the pause of partitions that are paused by then,
//! but its own pausing is only queued: the partition would be paused right after, and nothing but the next rebalance would
//! lift that. Therefore everything is paused by our own flag first, which keeps the lifting from being left out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::client::Ear;
use super::crew::Crew;
use super::error::{Doing, told_code};
use super::inbox::Wish;
use super::member::Shared;
use super::ownership::Standing;
use super::records::{list, offset_list, partitions, record};
use crate::error::StreamError;
use crate::record::TopicPartition;

/// How long a poll waits when nothing is to be arranged.
const POLL: Duration = Duration::from_millis(100);
/// How long it waits while partitions are on their way to or from somewhere.
const POLL_SOON: Duration = Duration::from_millis(5);
/// A full inbox is waited for so long before its partitions are paused: a pause throws the prefetch away.
const PAUSE_AFTER: Duration = Duration::from_secs(1);
/// How long a seek may take; it only reaches librdkafka's own thread.
const SEEK: Duration = Duration::from_secs(1);
/// A group that has refused this member takes its partitions away by itself, within a heartbeat or two (5 s each by
/// the broker's default). If it does not, the member leaves and joins again.
const ADRIFT_MAX: Duration = Duration::from_secs(12);

/// The consumer of a member.
pub(crate) type MemberConsumer = BaseConsumer<Callback>;

/// What librdkafka calls back.
pub(crate) struct Callback {
    ear: Ear,
    shared: Arc<Shared>,
    /// Touched by the polling thread alone; a mutex because callbacks only get a shared reference.
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// What the group has given.
    given: BTreeSet<TopicPartition>,
    /// What of it librdkafka fetches from, and whether that is paused: `None` when nobody has said so yet, since
    /// librdkafka keeps a pause beyond the assignment that it was for.
    assigned: BTreeMap<TopicPartition, Option<bool>>,
}

impl Places {
    /// Everything assigned that is not known to be paused; it counts as paused from here on.
    fn all_paused(&mut self) -> Vec<TopicPartition> {
        let told = self.assigned.iter_mut().filter(|(_, paused)| **paused != Some(true));
        told.map(|(partition, paused)| {
            *paused = Some(true);
            partition.clone()
        })
        .collect()
    }

    /// What librdkafka has to be told to pause and to resume, so that it fetches exactly what is wanted. From here on
    /// it counts as told.
    fn changes(&mut self, is_wanted: impl Fn(&TopicPartition) -> bool) -> [Vec<TopicPartition>; 2] {
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (partition, paused) in &mut self.assigned {
            let should_pause = !is_wanted(partition);
            if *paused != Some(should_pause) {
                *paused = Some(should_pause);
                if should_pause { &mut pause } else { &mut resume }.push(partition.clone());
            }
        }
        [pause, resume]
    }
}

impl Callback {
    pub(crate) fn new(ear: Ear, shared: Arc<Shared>) -> Self {
        Self { ear, shared, places: Mutex::default() }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given(&self, consumer: &BaseConsumer<Self>, new: &[TopicPartition]) {
        let mut places = self.places();
        places.given.extend(new.iter().cloned());
        let mut ownership = self.shared.ownership();
        if *ownership.standing() == Standing::Adrift {
            // The group knows us again. Whatever it never took away is ours from its committed offset.
            let all: Vec<_> = places.given.iter().cloned().collect();
            ownership.arrive(&all);
        } else {
            ownership.arrive(new);
        }
        drop(ownership);
        // Nothing yet: see above.
        assign(consumer, &mut places, &TopicPartitionList::new());
        drop(places);
        self.shared.orders.look();
        // Whoever was paused for it is to be resumed.
        self.shared.inbox.nudge();
    }

    fn taken(&self, consumer: &BaseConsumer<Self>, gone: &[TopicPartition]) {
        let lost = consumer.assignment_lost();
        // Waits for a running transaction, if there is one; from here on theirs are refused.
        self.shared.ownership().depart(gone);
        self.shared.inbox.release(gone, lost);
        let mut places = self.places();
        let assigned: Vec<_> =
            gone.iter().filter(|partition| places.assigned.remove(*partition).is_some()).cloned().collect();
        for partition in gone {
            places.given.remove(partition);
        }
        drop(places);
        if let Err(error) = consumer.incremental_unassign(&list(&assigned)) {
            tracing::error!(%error, "a revocation could not be carried out: everything is given back");
            if let Err(error) = consumer.unassign() {
                tracing::error!(%error, "nor could that");
            }
        }
    }
}

impl ConsumerContext for Callback {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, which: &mut TopicPartitionList) {
        let partitions = partitions(which);
        let gives = what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let Shared { membership, metrics, .. } = &*self.shared;
        if !partitions.is_empty() && !self.shared.is_leaving() {
            metrics.rebalance();
            let verb = if gives { "gives" } else { "takes" };
            tracing::info!(
                group = &*membership.group,
                slot = &*membership.slot,
                ?partitions,
                "the group {verb}"
            );
        }
        if gives {
            self.given(consumer, &partitions);
        } else {
            self.taken(consumer, &partitions);
        }
    }
}

impl ClientContext for Callback {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.ear.hear_log(level, facility, text);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.ear.hear_error(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.ear.token()
    }
}

/// Assigns `new` beside what is assigned, which is paused for it (see the top of this file); false when it was refused.
fn assign(consumer: &BaseConsumer<Callback>, places: &mut Places, new: &TopicPartitionList) -> bool {
    let paused = places.all_paused();
    if !paused.is_empty()
        && let Err(error) = consumer.pause(&list(&paused))
    {
        tracing::warn!(%error, "partitions could not be paused");
    }
    let assigned = consumer.incremental_assign(new);
    if let Err(error) = &assigned {
        tracing::error!(%error, "an assignment could not be taken");
    }
    assigned.is_ok()
}

/// Polls until the member leaves, and leaves the group.
pub(crate) fn poll(consumer: Arc<MemberConsumer>, shared: &Shared, crew: &Crew) {
    let mut poller =
        Poller { consumer: &consumer, shared, seen: 0, again: true, swamped: false, adrift: None };
    while !shared.is_leaving() {
        if crew.is_closing() {
            shared.inbox.end(StreamError::Closed { what: "the log".to_owned() });
            shared.leave();
            break;
        }
        poller.turn();
    }
    // Whoever still commits needs the group: polling goes on until that has ended.
    while !shared.orders.has_ended() {
        drop(poller.consumer.poll(POLL_SOON));
    }
    shared.inbox.end(StreamError::Closed { what: "this membership".to_owned() });
    // Blocks until the group has been left; the revocation is called back within.
    drop(consumer);
}

struct Poller<'a> {
    consumer: &'a MemberConsumer,
    shared: &'a Shared,
    /// The wishes that were carried out.
    seen: u64,
    /// Something of them was not.
    again: bool,
    /// Everything is paused, because the inbox was full for too long.
    swamped: bool,
    adrift: Option<Instant>,
}

impl Poller<'_> {
    fn turn(&mut self) {
        let inbox = &self.shared.inbox;
        if self.swamped && inbox.has_room() {
            self.swamped = false;
            self.again = true;
        }
        if self.again || inbox.wish_count() != self.seen {
            self.arrange();
        }
        if !self.swamped && inbox.is_full() && !inbox.wait_for_room(PAUSE_AFTER, self.seen) {
            self.swamped = true;
            self.arrange();
        }
        if !self.swamped && inbox.is_full() {
            // A wish came first.
            return;
        }
        let patience = if self.is_moving() { POLL_SOON } else { POLL };
        match self.consumer.poll(patience) {
            None => {}
            Some(Ok(message)) => self.take(&message),
            Some(Err(error)) => self.hear(&error),
        }
        self.look_after_adrift();
    }

    /// Whether partitions are on their way.
    fn is_moving(&self) -> bool {
        if self.again {
            return true;
        }
        self.consumer.context().places().given.len() != self.shared.inbox.held_count()
    }

    fn take(&self, message: &BorrowedMessage<'_>) {
        // The topic's name as the group has given it: it is not made anew for each record.
        let places = self.consumer.context().places();
        let place = TopicPartition::new(message.topic(), message.partition());
        let Some(place) = places.given.get(&place) else { return };
        self.shared.inbox.push(place, record(&place.topic, message));
    }

    /// Brings the consumer in line with what the inbox wishes.
    fn arrange(&mut self) {
        let (seen, wishes) = self.shared.inbox.wishes();
        self.seen = seen;
        let mut places = self.consumer.context().places();
        let Places { given, assigned } = &*places;
        let mut late = BTreeSet::new();
        // Only what the group has given and not taken since.
        let ours = wishes.iter().filter(|(partition, _)| given.contains(*partition));
        let (old, new): (Vec<_>, Vec<_>) = ours.partition(|(partition, _)| assigned.contains_key(*partition));
        for (partition, wish) in old {
            if !self.moved(partition, *wish) {
                late.insert(partition.clone());
            }
        }
        self.placed(&mut places, &new, &mut late);
        self.again = !late.is_empty();
        let swamped = self.swamped;
        let is_wanted = |partition: &TopicPartition| {
            !swamped && !late.contains(partition) && wishes.get(partition).is_some_and(|wish| !wish.paused)
        };
        let [pause, resume] = places.changes(is_wanted);
        drop(places);
        let pause = (!pause.is_empty()).then(|| self.consumer.pause(&list(&pause)));
        let resume = (!resume.is_empty()).then(|| self.consumer.resume(&list(&resume)));
        for error in [pause, resume].into_iter().flatten().filter_map(Result::err) {
            tracing::warn!(%error, "partitions could not be paused or resumed");
        }
    }

    /// Assigns what was settled since, all of it at once; what has to be tried again is `late`.
    fn placed(
        &self,
        places: &mut Places,
        new: &[(&TopicPartition, &Wish)],
        late: &mut BTreeSet<TopicPartition>,
    ) {
        let there: Vec<_> =
            new.iter().filter_map(|(partition, wish)| Some((*partition, wish.seek?))).collect();
        if there.is_empty() {
            return;
        }
        let is_assigned = assign(self.consumer, places, &offset_list(there));
        for (partition, wish) in new.iter().filter(|(_, wish)| wish.seek.is_some()) {
            if is_assigned {
                places.assigned.insert((*partition).clone(), None);
                self.shared.inbox.sought(partition, **wish);
            } else {
                late.insert((*partition).clone());
            }
        }
    }

    /// Moves the consumer to where the wish wants it; false when that has to be tried again.
    fn moved(&self, partition: &TopicPartition, wish: Wish) -> bool {
        let Some(offset) = wish.seek else { return true };
        if wish.paused {
            // There is time until it is resumed.
            return true;
        }
        match self.consumer.seek_partitions(offset_list([(partition, offset)]), SEEK) {
            Ok(done) if done.elements().iter().all(|entry| entry.error().is_ok()) => {
                self.shared.inbox.sought(partition, wish);
                true
            }
            // Its fetcher is only starting or stopping.
            Ok(_) | Err(_) => false,
        }
    }

    fn hear(&self, error: &KafkaError) {
        let group = &*self.shared.membership.group;
        match error {
            KafkaError::MessageConsumptionFatal(code) => {
                let fatal = self.consumer.client().fatal_error();
                let (code, said) = fatal.unwrap_or_else(|| (*code, error.to_string()));
                self.shared.inbox.end(told_code(Doing::Group(group), code, &said));
            }
            KafkaError::MessageConsumption(
                code @ (Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed),
            ) => {
                let topics = self.shared.membership.topics.join(", ");
                let doing = match code {
                    Code::TopicAuthorizationFailed => Doing::Reading(&topics),
                    _ => Doing::Group(group),
                };
                self.shared.inbox.end(told_code(doing, *code, &error.to_string()));
            }
            // librdkafka tries on by itself, and health tells of brokers that are away.
            passing => tracing::debug!(group, error = %passing, "the consumer complains"),
        }
    }

    /// A group that refused this member has to take its partitions away; if it does not, the member joins anew.
    fn look_after_adrift(&mut self) {
        let Some(ownership) = self.shared.try_ownership() else { return };
        let is_adrift = *ownership.standing() == Standing::Adrift;
        drop(ownership);
        if !is_adrift {
            self.adrift = None;
            return;
        }
        if self.adrift.get_or_insert_with(Instant::now).elapsed() < ADRIFT_MAX {
            return;
        }
        self.adrift = None;
        tracing::warn!(group = &*self.shared.membership.group, "the group is left and joined again");
        self.consumer.unsubscribe();
        let topics: Vec<&str> = self.shared.membership.topics.iter().map(|topic| &**topic).collect();
        if let Err(error) = self.consumer.subscribe(&topics) {
            tracing::warn!(%error, "the group could not be joined again");
        }
    }
}

/// Where a committed offset was told, it is at least 0.
pub(crate) fn told_offset(offset: Offset) -> Option<i64> {
    match offset {
        Offset::Offset(offset) if offset >= 0 => Some(offset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(index: i32) -> TopicPartition {
        TopicPartition::new("t", index)
    }

    fn places(assigned: &[(i32, Option<bool>)]) -> Places {
        let assigned = assigned.iter().map(|(index, paused)| (partition(*index), *paused)).collect();
        Places { given: BTreeSet::new(), assigned }
    }

    #[test]
    fn what_arrives_while_everything_is_paused_is_paused_and_resumed_with_the_rest() {
        let mut places = places(&[(0, Some(false))]);
        assert_eq!(places.changes(|_| false), [vec![partition(0)], vec![]], "the inbox is swamped");
        places.assigned.insert(partition(1), None);
        assert_eq!(places.changes(|_| false), [vec![partition(1)], vec![]], "it arrives meanwhile");
        assert_eq!(places.changes(|_| false), [vec![], vec![]], "nothing is said twice");
        assert_eq!(
            places.changes(|_| true),
            [vec![], vec![partition(0), partition(1)]],
            "there is room again"
        );
        assert_eq!(places.changes(|_| true), [vec![], vec![]]);
    }

    #[test]
    fn what_went_while_it_was_paused_is_resumed_when_it_comes_back() {
        let mut places = places(&[(0, Some(false)), (1, Some(false))]);
        places.changes(|_| false);
        // The group takes it, and gives it back when there is room: librdkafka has kept the pause.
        places.assigned.remove(&partition(1));
        places.changes(|_| true);
        places.assigned.insert(partition(1), None);
        assert_eq!(places.changes(|_| true), [vec![], vec![partition(1)]]);
        assert_eq!(places.changes(|name| *name == partition(1)), [vec![partition(0)], vec![]]);
    }
}
