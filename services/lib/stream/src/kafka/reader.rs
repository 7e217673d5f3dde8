//! Reading without a group: one consumer and one thread for each topic, and a bounded channel.
//!
//! Control records and aborted ones occupy offsets that no message tells of. The end of a partition is told by
//! librdkafka (`PartitionEOF`, in order with the messages, but without an offset and without a topic: hence one
//! consumer a topic). At the end of a tail the position moves over such a gap in three steps: ask for the last stable
//! offset, fetch once more from where we are, and when the end is told again everything below that offset was given. All
//! of it twice: the one who told the end may have been elected after the offset was asked for, and not know yet how far the
//! log is stable; that it is so twice is rarer still.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::sync::mpsc;

use super::Core;
use super::client::{Ear, Troubles};
use super::error::{Doing, told, told_code, unreachable};
use super::records::{offset_list, record, size_bytes};
use crate::error::StreamError;
use crate::log::{ReadBatch, ReadEnd, Reader};
use crate::member::FetchBounds;
use crate::record::{Record, TopicPartition};

/// Batches that lie ready, of all topics together.
const BATCHES_MAX: usize = 4;
/// How long a poll waits.
const POLL: Duration = Duration::from_millis(100);
/// How long the broker holds a fetch that finds nothing: the end of a partition is told after one such.
const PATIENCE_MS: u64 = 20;
/// A tail is there to wait.
const TAIL_PATIENCE_MS: u64 = 250;
/// How long a seek or the last stable offset may take at the end of a tail; otherwise the next idle moment will do.
const LOOK: Duration = Duration::from_secs(1);

/// So often the end is told before a gap is believed.
const TOLD: u32 = 2;

type Sent = Result<ReadBatch, StreamError>;

/// Reads partitions as their threads give them.
pub(crate) struct KafkaReader {
    batches: mpsc::Receiver<Sent>,
    until: ReadEnd,
}

/// Where each partition is, and where it ends, if it does.
pub(crate) type From = (TopicPartition, i64, Option<i64>);

impl KafkaReader {
    /// Starts the threads. Partitions that are at their end already need none.
    pub(crate) fn start(core: &Arc<Core>, from: Vec<From>, until: ReadEnd) -> Result<Self, StreamError> {
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let mut topics: BTreeMap<Arc<str>, BTreeMap<i32, Place>> = BTreeMap::new();
        for (partition, next_offset, end) in from {
            if end.is_none_or(|end| next_offset < end) {
                let place = Place { next_offset, end, checked: None, told: 0, at_end: false };
                topics.entry(partition.topic).or_default().insert(partition.partition, place);
            }
        }
        for (topic, places) in topics {
            let feed = Feed::open(core, topic, places, (sender.clone(), until))?;
            core.crew().start("kafka-reader", move || feed.run())?;
        }
        Ok(Self { batches, until })
    }
}

#[async_trait]
impl Reader for KafkaReader {
    async fn next(&mut self) -> Result<Option<ReadBatch>, StreamError> {
        match (self.batches.recv().await, self.until) {
            (Some(sent), _) => sent.map(Some),
            (None, ReadEnd::Watermark) => Ok(None),
            (None, ReadEnd::Tail) => Err(StreamError::Closed { what: "the log".to_owned() }),
        }
    }
}

/// One topic's thread.
struct Feed {
    core: Arc<Core>,
    topic: Arc<str>,
    consumer: BaseConsumer<Ear>,
    troubles: Arc<Troubles>,
    places: BTreeMap<i32, Place>,
    sender: mpsc::Sender<Sent>,
    /// Records of one partition that are not sent yet.
    pending: Vec<Record>,
    pending_bytes: usize,
    bounds: FetchBounds,
    moved_at: Instant,
}

struct Place {
    /// Everything below was sent or is pending.
    next_offset: i64,
    /// Where to stop; `None`: never.
    end: Option<i64>,
    /// At the end told last: everything below this is given when the end is told once more.
    checked: Option<i64>,
    /// How often the end was told after a check, and nothing has come since.
    told: u32,
    /// The end was told and nothing has come since.
    at_end: bool,
}

/// The receiver has gone.
struct Unwanted;

impl Feed {
    fn open(
        core: &Arc<Core>,
        topic: Arc<str>,
        places: BTreeMap<i32, Place>,
        (sender, until): (mpsc::Sender<Sent>, ReadEnd),
    ) -> Result<Self, StreamError> {
        let troubles = Arc::new(Troubles::default());
        let ear = core.clients().ear(format!("reader of {topic}"), Arc::clone(&troubles));
        let patience = if until == ReadEnd::Tail { TAIL_PATIENCE_MS } else { PATIENCE_MS };
        let failed = |error: KafkaError| told(Doing::Reading(&topic), &error);
        let settings = core.clients().reader(patience);
        let consumer = BaseConsumer::from_config_and_context(&settings, ear).map_err(failed)?;
        core.clients().admit(consumer.client())?;
        let from: Vec<_> = places
            .iter()
            .map(|(index, place)| (TopicPartition::new(Arc::clone(&topic), *index), place.next_offset))
            .collect();
        let from = offset_list(from.iter().map(|(partition, offset)| (partition, *offset)));
        consumer.assign(&from).map_err(failed)?;
        Ok(Self {
            core: Arc::clone(core),
            topic,
            consumer,
            troubles,
            places,
            sender,
            pending: Vec::new(),
            pending_bytes: 0,
            bounds: FetchBounds::default(),
            moved_at: Instant::now(),
        })
    }

    fn run(mut self) {
        while !self.core.crew().is_closing() && !self.sender.is_closed() && !self.places.is_empty() {
            if self.turn().is_err() {
                return;
            }
        }
        if self.core.crew().is_closing() {
            self.fail(StreamError::Closed { what: "the log".to_owned() });
        }
    }

    fn turn(&mut self) -> Result<(), Unwanted> {
        // What is pending goes out as soon as nothing follows at once.
        let patience = if self.pending.is_empty() { POLL } else { Duration::ZERO };
        // The consumer's message borrows it; what is wanted of it is copied.
        let polled =
            self.consumer.poll(patience).map(|polled| polled.map(|message| record(&self.topic, &message)));
        match polled {
            Some(Ok(record)) => self.take(record),
            Some(Err(KafkaError::PartitionEOF(index))) => self.end(index),
            Some(Err(error)) => self.hear(&error),
            None if !self.pending.is_empty() => self.send(),
            None => self.idle(),
        }
    }

    fn take(&mut self, record: Record) -> Result<(), Unwanted> {
        let index = record.position.partition;
        if self.pending.first().is_some_and(|first| first.position.partition != index) {
            self.send()?;
        }
        self.moved_at = Instant::now();
        let Some(place) = self.places.get_mut(&index) else { return Ok(()) };
        let offset = record.position.offset;
        if let Some(end) = place.end.filter(|end| offset >= *end) {
            return self.finish(index, end);
        }
        if offset < place.next_offset {
            // Fetched again on the way over a gap.
            return Ok(());
        }
        place.next_offset = offset + 1;
        (place.at_end, place.checked, place.told) = (false, None, 0);
        let is_last = place.end == Some(offset + 1);
        self.pending_bytes += size_bytes(&record);
        self.pending.push(record);
        let bounds = self.bounds;
        if self.pending.len() >= bounds.records_max || self.pending_bytes >= bounds.bytes_max || is_last {
            self.send()?;
        }
        if is_last {
            self.finish(index, offset + 1)?;
        }
        Ok(())
    }

    /// The end of a partition was told: everything below it has been given.
    fn end(&mut self, index: i32) -> Result<(), Unwanted> {
        self.send()?;
        self.moved_at = Instant::now();
        let Some(place) = self.places.get_mut(&index) else { return Ok(()) };
        if let Some(end) = place.end {
            return self.finish(index, end);
        }
        place.at_end = true;
        // The next idle moment looks again: there may be a gap above what was checked.
        let Some(checked) = place.checked.take().filter(|checked| *checked > place.next_offset) else {
            place.told = 0;
            return Ok(());
        };
        place.told += 1;
        if place.told < TOLD {
            return Ok(());
        }
        (place.next_offset, place.told) = (checked, 0);
        self.gap(index, checked)
    }

    /// A partition was read to its end.
    fn finish(&mut self, index: i32, end: i64) -> Result<(), Unwanted> {
        self.send()?;
        let Some(place) = self.places.remove(&index) else { return Ok(()) };
        let partition = TopicPartition::new(Arc::clone(&self.topic), index);
        // Nobody wants more of it; an error would only mean that it is gone already.
        drop(self.consumer.pause(&super::records::list([&partition])));
        if place.next_offset < end { self.gap(index, end) } else { Ok(()) }
    }

    fn gap(&self, index: i32, next_offset: i64) -> Result<(), Unwanted> {
        let partition = TopicPartition::new(Arc::clone(&self.topic), index);
        self.hand_over(Ok(ReadBatch { partition, records: Vec::new(), next_offset }))
    }

    fn send(&mut self) -> Result<(), Unwanted> {
        let records = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let Some(last) = records.last() else { return Ok(()) };
        let (partition, next_offset) = (last.position.topic_partition(), last.position.offset + 1);
        self.hand_over(Ok(ReadBatch { partition, records, next_offset }))
    }

    /// Waits for room: there is no group whose callbacks would have to run meanwhile.
    fn hand_over(&self, sent: Sent) -> Result<(), Unwanted> {
        self.sender.blocking_send(sent).map_err(|_| Unwanted)
    }

    /// Nothing comes. A tail moves over gaps now; a read that should end does not wait for ever.
    fn idle(&mut self) -> Result<(), Unwanted> {
        let overdue = self.moved_at.elapsed() > self.core.config().request_timeout;
        if overdue && self.places.values().any(|place| place.end.is_some()) {
            let error = unreachable(self.core.config(), self.troubles.last().as_ref());
            self.fail(error);
            return Err(Unwanted);
        }
        let unchecked: Vec<i32> = self
            .places
            .iter()
            .filter(|(_, place)| place.at_end && place.checked.is_none())
            .map(|(index, _)| *index)
            .collect();
        for index in unchecked {
            self.check(index);
        }
        Ok(())
    }

    fn check(&mut self, index: i32) {
        let Ok((_, stable)) = self.consumer.fetch_watermarks(&self.topic, index, LOOK) else { return };
        let Some(place) = self.places.get_mut(&index) else { return };
        if stable > place.next_offset {
            let partition = TopicPartition::new(Arc::clone(&self.topic), index);
            let there = offset_list([(&partition, place.next_offset)]);
            match self.consumer.seek_partitions(there, LOOK) {
                Ok(done) if done.elements().iter().all(|entry| entry.error().is_ok()) => place.at_end = false,
                // Its fetcher is only starting: the next idle moment.
                Ok(_) | Err(_) => return,
            }
        }
        place.checked = Some(stable);
    }

    fn hear(&mut self, error: &KafkaError) -> Result<(), Unwanted> {
        match error {
            KafkaError::MessageConsumption(
                code @ (Code::TopicAuthorizationFailed | Code::UnknownTopicOrPartition),
            ) => {
                self.fail(told_code(Doing::Reading(&self.topic), *code, &error.to_string()));
                Err(Unwanted)
            }
            KafkaError::MessageConsumptionFatal(code) => {
                self.fail(told_code(Doing::Reading(&self.topic), *code, &error.to_string()));
                Err(Unwanted)
            }
            // librdkafka tries on by itself; a right on the reader's group is not needed.
            passing => {
                tracing::debug!(topic = &*self.topic, error = %passing, "a reader complains");
                Ok(())
            }
        }
    }

    fn fail(&mut self, error: StreamError) {
        // The receiver may have gone: then nobody wants to know.
        if self.send().is_ok() {
            drop(self.hand_over(Err(error)));
        }
    }
}
