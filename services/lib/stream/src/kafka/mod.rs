//! Apache Kafka (4.0 or later), through librdkafka.
//!
//! A member of a group has one consumer, one producer whose transactional id is the membership's slot, and two
//! threads: one polls and runs the rebalance callback, the other carries out transactions, which block. They share one
//! lock: whoever changes who owns what waits for a running transaction, and a transaction is checked against the
//! owners within the lock that it holds to its commit. The broker does not check that a member owns the partition it
//! commits; these epochs are the protection, and they suffice because librdkafka joins the next generation only
//! after the callback has run.
//!
//! Start reading at `ownership.rs` (the rules, pure), then `committing.rs`, `transactor.rs` (why an instance is
//! dropped after any unanswered request) and `polling.rs`.

mod admin;
mod append;
mod catalog;
mod client;
mod committing;
mod config;
mod crew;
mod delivery;
mod error;
mod health;
mod inbox;
mod member;
mod orders;
mod ownership;
mod polling;
mod reader;
mod records;
mod token;
mod transactor;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ops::Failpoints;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::Offset;
use tokio::sync::watch;

pub use config::{DEFAULTS, Delivery, GroupProtocol, KafkaConfig, KafkaSettings, Property, SecurityProtocol};

use crate::error::StreamError;
use crate::log::{Log, LogHealth, ReadEnd, Reader, TopicDescription, TopicSize, TopicSpec, Watermarks};
use crate::member::{Member, Membership};
use crate::metrics::Metrics;
use crate::record::{NewRecord, Position, TopicPartition};
use append::Appender;
use catalog::{Catalog, Counts, knows};
use client::{Clients, Ear, Troubles};
use committing::Committing;
use crew::Crew;
use error::{Doing, code_of, in_our_words, told, told_code, unreachable};
use health::Pulse;
use member::{KafkaMember, Shared};
use ownership::{Epochs, Ownership};
use polling::{Callback, MemberConsumer};
use reader::KafkaReader;
use records::Row;
use transactor::Transactor;

/// A handle of Kafka. Clones are handles of the same one.
///
/// Its clients end when the last handle, member and reader is dropped, or by [`KafkaLog::close`].
#[derive(Clone)]
pub struct KafkaLog {
    core: Arc<Core>,
}

/// Groups whose offsets are asked for again and again: so many clients are kept for it.
const ONLOOKERS_MAX: usize = 4;
/// Log lines and errors of such a client that are taken out after each question.
const ONLOOKER_EVENTS_MAX: usize = 16;
/// Who leads a partition is asked again after so long. Chosen.
const LEADER_PAUSE: Duration = Duration::from_millis(50);

/// What handles, members and readers share.
pub(crate) struct Core {
    config: Arc<KafkaConfig>,
    clients: Clients,
    catalog: Arc<Catalog>,
    crew: Arc<Crew>,
    epochs: Arc<Epochs>,
    metrics: Metrics,
    failpoints: Failpoints,
    health: watch::Receiver<LogHealth>,
    troubles: Arc<Troubles>,
    /// Guards the client that asks; held to share it or to take it out. `None`: closed.
    enquirer: Mutex<Option<Arc<BaseConsumer<Ear>>>>,
    /// Guards clients that ask what a group has committed, by group; held to take one out or put one back.
    onlookers: Mutex<BTreeMap<String, BaseConsumer<Ear>>>,
    /// Guards the client that appends; held to make it, to share it or to take it out.
    appender: Mutex<Option<Arc<Appender>>>,
}

impl KafkaLog {
    /// Connects, and returns when a broker has answered.
    ///
    /// # Errors
    /// [`StreamError::Unavailable`] that names `kafka.bootstrap_servers` and what stands in the way when no broker
    /// answers within `request_timeout`; [`StreamError::Refused`] when the login is wrong.
    pub async fn connect(
        config: KafkaConfig,
        metrics: Metrics,
        failpoints: Failpoints,
    ) -> Result<Self, StreamError> {
        let config = Arc::new(config);
        let clients = Clients::new(Arc::clone(&config));
        let (crew, catalog): (Arc<Crew>, Arc<Catalog>) = (Arc::default(), Arc::default());
        let troubles = Arc::new(Troubles::default());
        let ear = clients.ear("enquirer", Arc::clone(&troubles));
        let enquirer = BaseConsumer::from_config_and_context(&clients.enquirer(), ear)
            .map_err(|error| StreamError::Invalid { why: in_our_words(&format!("kafka: {error}")) })?;
        clients.admit(enquirer.client())?;
        let enquirer = Arc::new(enquirer);
        let reason: Arc<str> =
            format!("kafka.bootstrap_servers {}: connecting", config.bootstrap_servers).into();
        let (health_sender, health) = watch::channel(LogHealth::NotReady { reason });
        let (first, mut answered) = watch::channel(None);
        let pulse = Pulse {
            client: Arc::clone(&enquirer),
            troubles: Arc::clone(&troubles),
            catalog: Arc::clone(&catalog),
            config: Arc::clone(&config),
            crew: Arc::clone(&crew),
            health: health_sender,
            first,
        };
        let core = Core {
            clients,
            catalog,
            crew,
            epochs: Arc::default(),
            metrics,
            failpoints,
            health,
            troubles,
            enquirer: Mutex::new(Some(enquirer)),
            onlookers: Mutex::default(),
            appender: Mutex::default(),
            config,
        };
        // From here on dropping the core ends the thread too.
        core.crew.start("kafka-health", move || pulse.run())?;
        let is_final = |answer: &Option<Result<(), StreamError>>| {
            matches!(answer, Some(Ok(()) | Err(StreamError::Refused { .. })))
        };
        let waited = tokio::time::timeout(core.config.request_timeout, answered.wait_for(is_final)).await;
        match waited {
            Ok(Ok(answer)) => {
                if let Some(Err(error)) = &*answer {
                    return Err(error.clone());
                }
            }
            Ok(Err(_)) => return Err(core.closed()),
            Err(_) => return Err(unreachable(&core.config, core.troubles.last().as_ref())),
        }
        Ok(Self { core: Arc::new(core) })
    }

    /// Closes it: members leave their groups, what was handed over before is done, and when this returns no client
    /// and no thread of it is left. Blocks.
    pub fn close(&self) {
        self.core.dismiss();
        self.core.crew.wait();
    }
}

impl Core {
    fn config(&self) -> &KafkaConfig {
        &self.config
    }

    fn clients(&self) -> &Clients {
        &self.clients
    }

    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn crew(&self) -> &Arc<Crew> {
        &self.crew
    }

    fn failpoints(&self) -> &Failpoints {
        &self.failpoints
    }

    fn closed(&self) -> StreamError {
        StreamError::Closed { what: "the log".to_owned() }
    }

    /// Asks every thread to end and lets go of the clients, each off this thread: destroying one blocks.
    fn dismiss(&self) {
        self.crew.dismiss();
        let enquirer = self.enquirer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let appender = self.appender.lock().unwrap_or_else(PoisonError::into_inner).take();
        let onlookers = std::mem::take(&mut *self.onlookers());
        let is_any = enquirer.is_some() || appender.is_some() || !onlookers.is_empty();
        if is_any
            && let Err(error) =
                self.crew.start("kafka-farewell", move || drop((enquirer, appender, onlookers)))
        {
            tracing::debug!(%error, "clients were destroyed on the spot");
        }
    }

    fn onlookers(&self) -> MutexGuard<'_, BTreeMap<String, BaseConsumer<Ear>>> {
        self.onlookers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enquirer(&self) -> Result<Arc<BaseConsumer<Ear>>, StreamError> {
        let enquirer = self.enquirer.lock().unwrap_or_else(PoisonError::into_inner);
        enquirer.clone().ok_or_else(|| self.closed())
    }

    fn appender(&self) -> Result<Arc<Appender>, StreamError> {
        let mut appender = self.appender.lock().unwrap_or_else(PoisonError::into_inner);
        if self.crew.is_closing() {
            return Err(self.closed());
        }
        if appender.is_none() {
            *appender = Some(Arc::new(Appender::new(&self.clients)?));
        }
        appender.clone().ok_or_else(|| self.closed())
    }

    /// Looks which topics there are. Blocks.
    fn refresh(&self) -> Result<Arc<Counts>, StreamError> {
        let enquirer = self.enquirer()?;
        self.catalog.refresh(&enquirer, self.config.request_timeout).map_err(|error| match error {
            StreamError::Unavailable { .. } => unreachable(&self.config, self.troubles.last().as_ref()),
            other => other,
        })
    }

    /// The topics, where all these are among them: as of the last look if that will do, or of a new one. Blocks.
    fn counts_with<'a>(
        &self,
        places: impl Iterator<Item = (&'a str, Option<i32>)> + Clone,
    ) -> Result<Arc<Counts>, StreamError> {
        let counts = self.catalog.counts();
        if knows(&counts, places.clone()).is_ok() {
            return Ok(counts);
        }
        let counts = self.refresh()?;
        match knows(&counts, places) {
            Ok(()) => Ok(counts),
            Err(StreamError::UnknownTopic { topic }) => Err(self.unknown(&topic)),
            Err(error) => Err(error),
        }
    }

    /// Why a topic is not on the list: it is not there, or this login may not see it. Asked for by its name, the
    /// broker tells the two apart.
    fn unknown(&self, topic: &str) -> StreamError {
        let absent = StreamError::UnknownTopic { topic: topic.to_owned() };
        let Ok(enquirer) = self.enquirer() else { return absent };
        let Ok(metadata) = enquirer.fetch_metadata(Some(topic), self.config.request_timeout) else {
            return absent;
        };
        let errors = metadata.topics().iter().filter_map(|topic| topic.error());
        match errors.map(Code::from).find(|code| *code == Code::TopicAuthorizationFailed) {
            Some(code) => told_code(Doing::Reading(topic), code, ""),
            None => absent,
        }
    }

    /// Decides each record's place. Blocks where a topic is not known yet.
    fn place(&self, records: Vec<NewRecord>) -> Result<Vec<Row>, StreamError> {
        let counts = self.counts_with(records.iter().map(|record| (&*record.topic, record.partition)))?;
        self.catalog.place(&counts, records)
    }

    /// A producer for a slot. Blocks.
    fn transactor(&self, slot: &Arc<str>, patience: Duration) -> Result<Transactor, StreamError> {
        let transactions = self.config.delivery == Delivery::ExactlyOnce;
        Transactor::begin(&self.clients, slot, transactions, patience, &self.failpoints)
    }

    /// Joins a group. Blocks.
    fn join(self: &Arc<Self>, membership: Membership) -> Result<KafkaMember, StreamError> {
        self.counts_with(membership.topics.iter().map(|topic| (&**topic, None)))?;
        let patience = self.config.request_timeout.max(self.config.transaction_timeout * 2);
        // First the slot, then the group: an older holder must not commit what this member is about to take over.
        let transactor = self.transactor(&membership.slot, patience)?;
        let ownership = Ownership::new(Arc::clone(&self.epochs));
        let settings = self.clients.member(&membership);
        let ear = self.clients.ear(format!("consumer of {}", membership.slot), Arc::default());
        let shared = Arc::new(Shared::new(membership, ownership, self.metrics.clone()));
        let group = Arc::clone(&shared.membership.group);
        let callback = Callback::new(ear, Arc::clone(&shared));
        let failed = |error| told(Doing::Group(&group), &error);
        let consumer = MemberConsumer::from_config_and_context(&settings, callback).map_err(failed)?;
        self.clients.admit(consumer.client())?;
        let consumer = Arc::new(consumer);
        let topics: Vec<&str> = shared.membership.topics.iter().map(|topic| &**topic).collect();
        consumer.subscribe(&topics).map_err(failed)?;

        let (held, gone) = watch::channel(());
        let committing =
            Committing::new(Arc::clone(self), Arc::clone(&shared), Arc::clone(&consumer), transactor);
        self.crew.start("kafka-commit", move || committing.run())?;
        let (theirs, crew) = (Arc::clone(&shared), Arc::clone(&self.crew));
        let poll = move || {
            let _gone_when_dropped = held;
            polling::poll(consumer, &theirs, &crew);
        };
        if let Err(error) = self.crew.start("kafka-poll", poll) {
            shared.leave();
            return Err(error);
        }
        Ok(KafkaMember::new(shared, gone, self.config.request_timeout))
    }

    fn ends(&self, partition: &TopicPartition) -> Result<Watermarks, StreamError> {
        self.counts_with([(&*partition.topic, Some(partition.partition))].into_iter())?;
        let (enquirer, until) = (self.enquirer()?, Instant::now() + self.config.request_timeout);
        loop {
            let (topic, index) = (&*partition.topic, partition.partition);
            match enquirer.fetch_watermarks(topic, index, self.config.request_timeout) {
                Ok((low, high)) => return Ok(Watermarks { low, high }),
                // Of a topic that was just made, or whose broker just came back: it has one soon.
                Err(error) if has_no_leader(&error) && Instant::now() < until => {
                    std::thread::park_timeout(LEADER_PAUSE);
                }
                Err(error) => return Err(told(Doing::Reading(topic), &error)),
            }
        }
    }

    fn start_reading(
        self: &Arc<Self>,
        from: Vec<(TopicPartition, i64)>,
        until: ReadEnd,
    ) -> Result<KafkaReader, StreamError> {
        let mut places = Vec::with_capacity(from.len());
        for (partition, offset) in from {
            let Watermarks { low, high } = self.ends(&partition)?;
            if offset > high {
                return Err(StreamError::OffsetOutOfRange { partition, offset, high });
            }
            let end = (until == ReadEnd::Watermark).then_some(high);
            places.push((partition, offset.max(low), end));
        }
        KafkaReader::start(self, places, until)
    }

    fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<i64, StreamError> {
        let ends = self.ends(partition)?;
        let failed = |error| told(Doing::Reading(&partition.topic), &error);
        // The list carries times where it will carry offsets. Before 1970 there is nothing.
        let asked = records::offset_list([(partition, timestamp_ms.max(0))]);
        let answered =
            self.enquirer()?.offsets_for_times(asked, self.config.request_timeout).map_err(failed)?;
        let entry = answered.find_partition(&partition.topic, partition.partition);
        match entry.map(|entry| entry.error().map(|()| entry.offset())) {
            Some(Ok(Offset::Offset(offset))) => Ok(offset.clamp(ends.low, ends.high)),
            Some(Err(error)) => Err(failed(error)),
            _ => Ok(ends.high),
        }
    }

    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, StreamError> {
        self.counts_with(partitions.iter().map(|name| (&*name.topic, Some(name.partition))))?;
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |error| told(Doing::Group(group), &error);
        let kept = self.onlookers().remove(group);
        let onlooker = match kept {
            Some(kept) => kept,
            None => {
                let ear = self.clients.ear(format!("onlooker of {group}"), Arc::default());
                BaseConsumer::from_config_and_context(&self.clients.onlooker(group), ear).map_err(failed)?
            }
        };
        // One that was kept, too: nobody has polled it since, and its token may have ended.
        self.clients.admit(onlooker.client())?;
        let answered = onlooker
            .committed_offsets(records::list(partitions), self.config.request_timeout)
            .map_err(|error| failed(denied(&onlooker).unwrap_or(error)))?;
        // What it has to say is listened to now: nobody polls it otherwise.
        for _ in 0..ONLOOKER_EVENTS_MAX {
            drop(onlooker.poll(Duration::ZERO));
        }
        let mut onlookers = self.onlookers();
        if onlookers.len() < ONLOOKERS_MAX && !self.crew.is_closing() {
            onlookers.insert(group.to_owned(), onlooker);
        }
        drop(onlookers);
        let mut committed = Vec::with_capacity(partitions.len());
        for name in partitions {
            let entry = answered.find_partition(&name.topic, name.partition);
            if let Some(entry) = &entry {
                entry.error().map_err(failed)?;
            }
            committed.push(entry.and_then(|entry| polling::told_offset(entry.offset())));
        }
        Ok(committed)
    }

    /// Does something that blocks, off the async threads.
    async fn off<R: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<R, StreamError> + Send + 'static,
    ) -> Result<R, StreamError> {
        if self.crew.is_closing() {
            return Err(self.closed());
        }
        let core = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&core)).await {
            Ok(done) => done,
            Err(error) => Err(StreamError::Unavailable { why: format!("a request was given up: {error}") }),
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.dismiss();
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn join(&self, membership: Membership) -> Result<Box<dyn Member>, StreamError> {
        let member = self.core.off(move |core| core.join(membership)).await?;
        Ok(Box::new(member))
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, StreamError> {
        let places = records.iter().map(|record| (&*record.topic, record.partition));
        let counts = self.core.catalog.counts();
        let rows = if knows(&counts, places).is_ok() {
            self.core.catalog.place(&counts, records)?
        } else {
            self.core.off(move |core| core.place(records)).await?
        };
        let appender = self.core.appender()?;
        appender.append(&self.core.clients, rows).await
    }

    async fn read(
        &self,
        from: Vec<(TopicPartition, i64)>,
        until: ReadEnd,
    ) -> Result<Box<dyn Reader>, StreamError> {
        let reader = self.core.off(move |core| core.start_reading(from, until)).await?;
        Ok(Box::new(reader))
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks, StreamError> {
        let partition = partition.clone();
        self.core.off(move |core| core.ends(&partition)).await
    }

    async fn offset_at(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<i64, StreamError> {
        let partition = partition.clone();
        self.core.off(move |core| core.offset_at(&partition, timestamp_ms)).await
    }

    async fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<i64>>, StreamError> {
        let (group, partitions) = (group.to_owned(), partitions.to_vec());
        self.core.off(move |core| core.committed(&group, &partitions)).await
    }

    async fn topics(&self) -> Result<Vec<TopicSize>, StreamError> {
        self.core.off(|core| admin::visible(core)).await
    }

    async fn describe(&self, topics: &[&str]) -> Result<Vec<TopicDescription>, StreamError> {
        let topics: Vec<String> = topics.iter().map(|&name| name.to_owned()).collect();
        self.core.off(move |core| admin::describe(core, &topics)).await
    }

    async fn create_topics(&self, topics: &[TopicSpec]) -> Result<(), StreamError> {
        let topics = topics.to_vec();
        self.core.off(move |core| admin::create(core, &topics)).await
    }

    fn health(&self) -> watch::Receiver<LogHealth> {
        self.core.health.clone()
    }

    fn delivery(&self) -> Delivery {
        self.core.config().delivery
    }
}

/// Whether a partition is without a leader for now.
fn has_no_leader(error: &KafkaError) -> bool {
    matches!(code_of(error), Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable))
}

/// Why an onlooker waits in vain, if that is for want of a right: librdkafka goes on looking for the group's coordinator,
/// and says so beside.
fn denied(onlooker: &BaseConsumer<Ear>) -> Option<KafkaError> {
    let mut events = (0..ONLOOKER_EVENTS_MAX).map_while(|_| onlooker.poll(Duration::ZERO));
    events
        .find_map(|event| event.err().filter(|error| code_of(error) == Some(Code::GroupAuthorizationFailed)))
}
