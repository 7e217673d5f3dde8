//! One producer instance and its transactions.
//!
//! The rule (`Any timeout or unknown result ends the instance`): librdkafka has no KIP-890, so after an unanswered
//! request a late EndTxn could end a *later* transaction of the same instance. Therefore an instance whose request
//! stayed without an answer, or that lost a connection within a transaction, is dropped; the next one's
//! `init_transactions` raises the epoch, and whatever is still under way is refused by the broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ops::Failpoints;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{Producer, ThreadedProducer};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::client::{Clients, Troubles};
use super::delivery::{Outbox, Round, RoundEnd};
use super::error::{Doing, code_of, is_fenced, is_group_fenced, is_old_generation, told, told_code, words};
use super::records::Row;
use crate::error::StreamError;

/// A producer with transactions (or, at-least-once, without).
pub(crate) struct Transactor {
    producer: ThreadedProducer<Outbox<Round>>,
    troubles: Arc<Troubles>,
    /// It lost connections before it could begin. librdkafka tells the third loss in a row that sounds like the two
    /// before it only after 30 s, so one within a transaction might not be heard: for one transaction it will do.
    is_deaf: bool,
    slot: Arc<str>,
    timeout: Duration,
    failpoints: Failpoints,
}

/// How an attempt at a transaction ended.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Everything is durable and visible; the records' offsets.
    Committed(Vec<i64>),
    /// Nothing of it is visible, nor will be.
    Aborted(StreamError),
    /// The same, and the reason is that the group does not know the member.
    GroupFenced(String),
    /// The same: the group knows the member, in another generation.
    OldGeneration(String),
    /// Nothing of it is or will be visible, once this instance has a successor.
    Broken(StreamError),
    /// It may have happened; the instance must have a successor before anybody can say.
    Unknown(String),
    /// A newer instance holds the slot.
    Fenced(String),
}

impl Attempt {
    /// What it means that offsets were not taken, if it was the group that refused them.
    pub(crate) fn refused(error: &KafkaError, why: String) -> Option<Self> {
        let code = code_of(error)?;
        is_group_fenced(code).then_some(if is_old_generation(code) {
            Self::OldGeneration(why)
        } else {
            Self::GroupFenced(why)
        })
    }
}

/// What moves with the records: offsets of a group.
pub(crate) struct Moves {
    pub(crate) group: Arc<str>,
    pub(crate) offsets: TopicPartitionList,
    /// Fetched within the same lock: another member may have raised the group's epoch since the assignment.
    pub(crate) metadata: ConsumerGroupMetadata,
}

impl Transactor {
    /// A new instance; with transactions it fences every older one of the slot and ends its open transaction.
    /// Blocks until that is done, or the timeout passes.
    pub(crate) fn begin(
        clients: &Clients,
        slot: &Arc<str>,
        transactions: bool,
        patience: Duration,
        failpoints: &Failpoints,
    ) -> Result<Self, StreamError> {
        let troubles = Arc::new(Troubles::default());
        let ear = clients.ear(format!("producer of {slot}"), Arc::clone(&troubles));
        let settings = if transactions { clients.transactor(slot) } else { clients.outcomes() };
        let outbox = Outbox { ear, receipts: Round::default() };
        let producer = ThreadedProducer::from_config_and_context(&settings, outbox)
            .map_err(|error| told(Doing::Slot(slot), &error))?;
        clients.admit(producer.client())?;
        if transactions {
            producer.init_transactions(patience).map_err(|error| not_begun(slot, &error, &troubles))?;
        }
        // Connections that were lost until here tear nothing. What may have been sent twice is InitProducerId, and
        // a late copy of it tears nothing: it ends whatever is open by then as a whole, and fences this instance as
        // a newer holder would, so that the process starts anew. A further instance would not help against it: the
        // broker takes such a request whenever it comes. A late EndTxn of an older instance is refused from here on.
        let is_deaf = troubles.take_shaken();
        let timeout = clients.config().transaction_timeout;
        let (slot, failpoints) = (Arc::clone(slot), failpoints.clone());
        Ok(Self { producer, troubles, is_deaf, slot, timeout, failpoints })
    }

    /// Whether a connection was lost since this was asked last, or may have been: then librdkafka may have repeated a
    /// request by itself, and the first copy may still arrive.
    pub(crate) fn is_shaken(&self) -> bool {
        self.troubles.take_shaken() || self.is_deaf
    }

    /// One transaction from begin to commit. Blocks for at most the transaction's timeout and a moment.
    pub(crate) fn transact(&self, rows: &[Row], moves: Option<&Moves>) -> Attempt {
        self.failpoints.reach("before-begin");
        let began = Instant::now();
        // The broker counts the timeout from the first record. Whoever gives up earlier than the broker does is not
        // fenced by it; a fifth is for the last second that each call is given, and for calls that return late.
        let deadline = began + self.timeout.mul_f64(0.8);
        let produced_by = began + self.timeout.mul_f64(0.6);
        if let Err(error) = self.producer.begin_transaction() {
            return self.failed(&error, Doing::Slot(&self.slot), None);
        }
        let offsets = match self.produce(rows, produced_by) {
            Ok(offsets) => offsets,
            Err((error, topic)) => return self.failed(&error, Doing::Writing(&topic), Some(deadline)),
        };
        if let Some(moves) = moves {
            let left = remaining(deadline);
            let sent = self.producer.send_offsets_to_transaction(&moves.offsets, &moves.metadata, left);
            if let Err(error) = sent {
                return self.failed(&error, Doing::Group(&moves.group), Some(deadline));
            }
        }
        self.failpoints.reach("before-commit");
        if let Err(error) = self.producer.commit_transaction(remaining(deadline)) {
            let said = words(&error);
            return match self.fencing(&error) {
                Some(why) if !self.has_outlived(deadline) => Attempt::Fenced(why),
                _ => Attempt::Unknown(format!("the commit was not answered: {said}")),
            };
        }
        self.failpoints.reach("after-commit");
        Attempt::Committed(offsets)
    }

    /// Writes records and waits for every answer, outside of any transaction.
    pub(crate) fn write(&self, rows: &[Row]) -> Result<Vec<i64>, StreamError> {
        self.failpoints.reach("before-begin");
        // As long as the producer tries; the margin is for its own last words.
        let until = Instant::now() + self.timeout.max(Duration::from_secs(10)) + Duration::from_secs(5);
        self.produce(rows, until).map_err(|(error, topic)| told(Doing::Writing(&topic), &error))
    }

    fn produce(&self, rows: &[Row], until: Instant) -> Result<Vec<i64>, (KafkaError, Arc<str>)> {
        let round = &self.producer.context().receipts;
        let first = round.open(rows.len());
        for (index, row) in rows.iter().enumerate() {
            if let Err((error, _)) = self.producer.send(row.to_send(first + index)) {
                return Err((error, Arc::clone(row.topic())));
            }
        }
        self.failpoints.reach("after-send");
        // Every answer is awaited before the commit: librdkafka's own flush would look for them every 100 ms only.
        match round.wait(until) {
            RoundEnd::Written(offsets) => Ok(offsets),
            RoundEnd::Failed(index, error) => Err((error, Arc::clone(rows[index].topic()))),
            RoundEnd::Late(open) => {
                tracing::debug!(slot = &*self.slot, "{open} records were not acknowledged in time");
                let error = KafkaError::MessageProduction(Code::MessageTimedOut);
                Err((error, Arc::clone(rows[0].topic())))
            }
        }
    }

    /// What a failure before the commit means; aborts where a transaction is open and the failure is known.
    fn failed(&self, error: &KafkaError, doing: Doing<'_>, open_until: Option<Instant>) -> Attempt {
        // Records that were waiting are only told that they were purged.
        let told = match self.producer.client().fatal_error() {
            Some((code, said)) => told_code(Doing::Slot(&self.slot), code, &said),
            None => told(doing, error),
        };
        let fenced = |why: String, told: StreamError| match open_until {
            Some(deadline) if self.has_outlived(deadline) => Attempt::Broken(told),
            _ => Attempt::Fenced(why),
        };
        if let Some(why) = self.fencing(error) {
            return fenced(why, told);
        }
        let Some(code) = code_of(error) else { return Attempt::Broken(told) };
        if is_unanswered(error, code) {
            return Attempt::Broken(told);
        }
        let Some(deadline) = open_until else { return Attempt::Broken(told) };
        match self.producer.abort_transaction(remaining(deadline)) {
            Ok(()) => Attempt::refused(error, words(error)).unwrap_or(Attempt::Aborted(told)),
            Err(error) => match self.fencing(&error) {
                Some(why) => fenced(why, told),
                None => Attempt::Broken(told),
            },
        }
    }

    /// Whether a transaction lasted longer than it may since no broker could be reached. Then the broker ends it when it
    /// is back, and raises the slot's epoch as a newer holder would: nothing tells the two apart, and an outage is the
    /// likelier one. Should there be a newer holder after all, the next instance fences it, as a restart of this process
    /// would. Who just stood still, connections and all, is presumed to have a successor.
    fn has_outlived(&self, deadline: Instant) -> bool {
        let has_outlived = Instant::now() >= deadline && self.troubles.take_shaken();
        if has_outlived {
            tracing::warn!(
                slot = &*self.slot,
                "fenced in a transaction that outlasted an outage: a new producer takes the slot, and another worker \
                 that has the same one would have to leave"
            );
        }
        has_outlived
    }

    /// Whether an error, or the fatal one behind it, says that a newer instance has come.
    fn fencing(&self, error: &KafkaError) -> Option<String> {
        if code_of(error).is_some_and(is_fenced) {
            return Some(words(error));
        }
        let (code, said) = self.producer.client().fatal_error()?;
        is_fenced(code).then_some(said)
    }
}

fn remaining(deadline: Instant) -> Duration {
    // Zero would mean "do not wait at all"; and a process that was stopped for a while shall hear why it is refused.
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))
}

/// Whether nobody can say what the broker did.
fn is_unanswered(error: &KafkaError, code: Code) -> bool {
    let may_retry =
        matches!(error, KafkaError::Transaction(error) if error.is_retriable() || error.is_fatal());
    may_retry
        || matches!(
            code,
            Code::OperationTimedOut
                | Code::TimedOutQueue
                | Code::RequestTimedOut
                | Code::MessageTimedOut
                | Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::WaitingForCoordinator
                | Code::State
                | Code::Fatal
                | Code::InProgress
                | Code::PreviousInProgress
                | Code::Conflict
        )
}

fn not_begun(slot: &Arc<str>, error: &KafkaError, troubles: &Troubles) -> StreamError {
    if code_of(error).is_some_and(is_fenced) {
        return StreamError::Fenced { slot: slot.to_string(), why: words(error) };
    }
    match told(Doing::Slot(slot), error) {
        // "Timed out" says little: the connection's own complaint says why.
        StreamError::Unavailable { why } => {
            let why = match troubles.last() {
                Some(trouble) => format!("{why}: {}", trouble.text),
                None => why,
            };
            StreamError::Unavailable { why }
        }
        other => other,
    }
}
