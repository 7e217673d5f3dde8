//! `WatchVerdicts`: verdicts as they come. Every watcher reads the topic itself, from any offset, so that a stream
//! goes on at any replica; the log is the buffer, and only what a watcher refuses to take for long is skipped.

use std::pin::Pin;
use std::time::Duration;

use forensics::Tenant;
use futures::Stream;
use ops::Shutdown;
use proto::server::{deadline_of, tenant_of};
use proto::v1::{self, watch_verdicts_response::Event};
use stream::{ReadBatch, ReadEnd, Reader, StreamError, TopicPartition};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, Permit};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::{Answers, tokens};
use crate::config::WatchConfig;
use crate::error::QueryError;
use crate::metrics::Metrics;
use crate::projector::partitions;
use crate::store::{Filter, Row, Seat};

pub(crate) type WatchStream =
    Pin<Box<dyn Stream<Item = Result<v1::WatchVerdictsResponse, Status>> + Send + 'static>>;

type Answer = Result<v1::WatchVerdictsResponse, Status>;

pub(super) async fn start(
    answers: &Answers,
    request: Request<v1::WatchVerdictsRequest>,
) -> Result<WatchStream, QueryError> {
    let tenant = tenant_of(request.metadata())?;
    let deadline = deadline_of(request.metadata()).map(|after| Instant::now() + after);
    let request = request.into_inner();
    let filter = Filter::try_from(request.filter.clone().unwrap_or_default())?;
    let max = answers.watch.watchers_max;
    let place = answers.watchers.clone().try_acquire_owned();
    let place = place.map_err(|_| QueryError::TooMany { what: "watchers", max })?;
    let (offsets, missed) = beginning(answers, &request).await?;
    let from = offsets.to_vec();
    let reader = answers.log.read(from, ReadEnd::Tail).await.map_err(|error| match error {
        StreamError::OffsetOutOfRange { .. } => QueryError::invalid(
            "resume_token",
            "belongs to another log: begin without a token, or from_start",
        ),
        error => error.into(),
    })?;
    let (sender, receiver) = mpsc::channel(answers.watch.buffer);
    let watcher = Watcher {
        reader,
        tenant,
        filter,
        offsets: offsets.into_iter().map(|(_, offset)| offset).collect(),
        missed,
        deadline,
        config: answers.watch.clone(),
        metrics: answers.metrics.clone(),
        sender,
        _place: place,
    };
    answers.tasks.spawn_finite("watch", watcher.run(answers.shutdown.clone()));
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// Each partition's first offset, in order, and how many offsets retention has removed below.
async fn beginning(
    answers: &Answers,
    request: &v1::WatchVerdictsRequest,
) -> Result<(Vec<(TopicPartition, i64)>, u64), QueryError> {
    let partitions = partitions(&*answers.log, &answers.topic).await?;
    let resume = match (request.resume_token.as_str(), request.from_start) {
        ("", _) => None,
        (_, true) => return Err(QueryError::invalid("from_start", "cannot come with a resume_token")),
        (token, false) => Some(tokens::watch(token, partitions.len())?),
    };
    let (mut from, mut missed) = (Vec::with_capacity(partitions.len()), 0);
    for (index, partition) in partitions.into_iter().enumerate() {
        let ends = answers.log.watermarks(&partition).await?;
        let offset = match &resume {
            Some(offsets) => {
                missed += u64::try_from(ends.low - offsets[index]).unwrap_or(0);
                offsets[index].max(ends.low)
            }
            None if request.from_start => ends.low,
            None => ends.high,
        };
        from.push((partition, offset));
    }
    Ok((from, missed))
}

struct Watcher {
    reader: Box<dyn Reader>,
    tenant: Tenant,
    filter: Filter,
    /// Each partition's next offset: the token.
    offsets: Vec<i64>,
    /// Verdicts that were not sent; while there are some, it skips until the watcher takes the gap marker.
    missed: u64,
    deadline: Option<Instant>,
    config: WatchConfig,
    metrics: Metrics,
    sender: mpsc::Sender<Answer>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    async fn run(mut self, shutdown: Shutdown) {
        self.metrics.watchers.inc();
        self.metrics.watch_missed.inc_by(self.missed);
        if let Err(error) = self.watch(&shutdown).await {
            // A watcher whose buffer is full learns it from the end of the stream.
            let _told = self.sender.try_send(Err(error.into())).is_ok();
        }
        self.metrics.watchers.dec();
    }

    /// `Ok` when the watcher has left.
    async fn watch(&mut self, shutdown: &Shutdown) -> Result<(), QueryError> {
        let sender = self.sender.clone();
        let deadline = self.deadline.unwrap_or_else(far_future);
        let mut quiet_since = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = sender.closed() => return Ok(()),
                () = shutdown.requested() => return Err(QueryError::Leaving),
                () = sleep_until(deadline) => return Err(QueryError::Deadline),
                Ok(room) = sender.reserve(), if self.missed > 0 => {
                    let gap = v1::watch_verdicts_response::Gap { missed_count: self.missed };
                    self.missed = 0;
                    self.send(room, Event::Gap(gap));
                    quiet_since = Instant::now();
                }
                () = sleep_until(quiet_since + self.config.heartbeat), if self.missed == 0 => {
                    // A full buffer says enough.
                    if let Ok(room) = sender.try_reserve() {
                        self.send(room, Event::Heartbeat(v1::watch_verdicts_response::Heartbeat {}));
                    }
                    quiet_since = Instant::now();
                }
                batch = self.reader.next() => {
                    let batch = batch?.ok_or(QueryError::Leaving)?;
                    let give_up = Halt { shutdown, deadline };
                    if self.take(batch, &sender, give_up).await? {
                        quiet_since = Instant::now();
                    }
                }
            }
        }
    }

    /// Sends what passes; whether something did.
    async fn take(
        &mut self,
        batch: ReadBatch,
        sender: &mpsc::Sender<Answer>,
        halt: Halt<'_>,
    ) -> Result<bool, QueryError> {
        let index = usize::try_from(batch.partition.partition).unwrap_or(0);
        let mut sent = false;
        for record in &batch.records {
            self.offsets[index] = record.position.offset + 1;
            let seat = Seat::new(batch.partition.partition, record.position.offset);
            // The projector counts and logs what is no verdict.
            let Ok((row, verdict)) = Row::decode(seat, record.value.as_ref()) else { continue };
            if row.tenant != self.tenant || !self.filter.passes(&row) {
                continue;
            }
            let room = match self.missed {
                0 => room(sender, self.config.patience, &halt).await?,
                _ => None,
            };
            match room {
                Some(room) => {
                    self.send(room, Event::Verdict(verdict));
                    sent = true;
                }
                None => {
                    self.missed += 1;
                    self.metrics.watch_missed.inc();
                }
            }
        }
        self.offsets[index] = batch.next_offset;
        Ok(sent)
    }

    fn send(&self, room: Permit<'_, Answer>, event: Event) {
        let resume_token = tokens::of_watch(&self.offsets);
        room.send(Ok(v1::WatchVerdictsResponse { event: Some(event), resume_token }));
    }
}

/// What ends the wait for a slow watcher.
struct Halt<'s> {
    shutdown: &'s Shutdown,
    deadline: Instant,
}

/// Room in the watcher's buffer; `None` when there was none for too long.
async fn room<'s>(
    sender: &'s mpsc::Sender<Answer>,
    patience: Duration,
    halt: &Halt<'_>,
) -> Result<Option<Permit<'s, Answer>>, QueryError> {
    if let Ok(room) = sender.try_reserve() {
        return Ok(Some(room));
    }
    tokio::select! {
        biased;
        room = sender.reserve() => room.map(Some).map_err(|_| QueryError::Leaving),
        () = halt.shutdown.requested() => Err(QueryError::Leaving),
        () = sleep_until(halt.deadline) => Err(QueryError::Deadline),
        () = tokio::time::sleep(patience) => Ok(None),
    }
}

/// tokio's own "never" for timers.
fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(86_400 * 365 * 30)
}
