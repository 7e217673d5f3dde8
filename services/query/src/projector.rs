//! Verdict topic → rows, for as long as the process lives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ops::{Exit, ExitReason, Gate, Shutdown};
use stream::{Disposition, Log, ReadBatch, ReadEnd, Reader, StreamError, TopicPartition};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::store::{Row, Seat, Store, StoreError, Stretch};

/// Asking the log for its end costs a round trip on some logs.
const LAG_EVERY: Duration = Duration::from_secs(1);

/// A batch of so many records means that there are more: half of what the log gives at most.
const BEHIND: usize = 256;

/// Records of one transaction, as far as whole batches allow: 2,048 (and checkpoints at 64 MB) were written 1.3 times
/// as fast as 512 (at 16 MB); measured 2026-11-24, 200,000 rows.
const RECORDS_MAX: usize = 2_048;

/// How long a further batch is waited for while it is behind. Chosen: several fetches of a local log.
const GATHER_FOR: Duration = Duration::from_millis(5);

/// A store is asked whether it is there after so long without a record. Chosen.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Partition → next offset: how far the store follows the topic.
pub type Projected = BTreeMap<i32, i64>;

/// Reads all partitions without a group, from the store's own offsets: several replicas may share a store, and a
/// lost store is built anew from the topic's beginning.
pub(crate) struct Projector {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) store: Store,
    pub(crate) topic: Arc<str>,
    /// The first pause after a failure, and the longest.
    pub(crate) pauses: (Duration, Duration),
    pub(crate) gate: Gate,
    pub(crate) metrics: Metrics,
    pub(crate) projected: watch::Sender<Projected>,
}

/// Why following ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Stop {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("verdict topic: {0}")]
    Log(#[from] StreamError),
}

impl Projector {
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<(), Exit> {
        let mut pause = self.pauses.0;
        loop {
            let began = Instant::now();
            let stop = tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(()),
                stop = self.follow() => stop,
            };
            self.metrics.failures.inc();
            stop.fatal()?;
            self.gate.not_ready(stop.to_string());
            // What worked for a while begins with a short pause again.
            pause = if began.elapsed() > self.pauses.1 { self.pauses.0 } else { pause };
            tracing::warn!(retry_in_ms = pause.as_millis(), "the projector pauses: {stop}");
            tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(self.pauses.1);
        }
    }

    async fn follow(&mut self) -> Stop {
        match self.try_follow().await {
            Ok(never) => match never {},
            Err(stop) => stop,
        }
    }

    async fn try_follow(&mut self) -> Result<std::convert::Infallible, Stop> {
        let mut offsets = self.offsets().await?;
        let from = partitions(&*self.log, &self.topic).await?;
        let from = from.into_iter().map(|tp| {
            let next = offsets.get(&tp.partition).copied().unwrap_or(0);
            (tp, next)
        });
        let mut reader = self.log.read(from.collect(), ReadEnd::Tail).await?;
        // Where the reader stands: another replica may move the store beyond it.
        let mut read = offsets.clone();
        self.projected.send_replace(offsets.clone());
        self.gate.ready();
        let mut lag_known: BTreeMap<i32, Instant> = BTreeMap::new();
        loop {
            let Ok(first) = tokio::time::timeout(LOOK_EVERY, reader.next()).await else {
                // Nothing comes: whether the store is there is not known without asking.
                offsets = self.offsets().await?;
                beyond(&offsets, &standing(&read))?;
                self.projected.send_replace(offsets.clone());
                continue;
            };
            let batches = gather(first?, &mut *reader).await?;
            let last = batches.last().expect("a gathering has one batch at least");
            let (partition, next_offset) = (last.partition.clone(), last.next_offset);
            self.project(batches, &mut read, &mut offsets).await?;
            self.projected.send_replace(offsets.clone());
            let known = lag_known.get(&partition.partition);
            if known.is_none_or(|at| at.elapsed() >= LAG_EVERY) {
                let lag = self.log.watermarks(&partition).await?.high - next_offset;
                let label = partition.partition.to_string();
                self.metrics.lag.with_label_values(&[&label]).set(lag.max(0));
                lag_known.insert(partition.partition, Instant::now());
            }
        }
    }

    async fn offsets(&self) -> Result<Projected, StoreError> {
        Ok(self.store.offsets().await?.into_iter().collect())
    }

    /// Batches, one transaction; `read` and `offsets` move on with it. What another replica has applied already is
    /// left out: the two follow the same topic, and whoever comes first is as good as the other.
    async fn project(
        &self,
        batches: Vec<ReadBatch>,
        read: &mut Projected,
        offsets: &mut Projected,
    ) -> Result<(), StoreError> {
        let mut seen = Vec::with_capacity(batches.len());
        for batch in &batches {
            let (partition, next_offset) = (batch.partition.partition, batch.next_offset);
            let expected = read.insert(partition, next_offset);
            seen.push(Stretch { partition, expected, next_offset, rows: self.rows(batch) });
        }
        let applied = loop {
            let left = beyond(offsets, &seen)?;
            if left.is_empty() {
                return Ok(());
            }
            let began = Instant::now();
            match self.store.apply(left).await {
                Ok(applied) => {
                    self.metrics.apply_duration.observe(began.elapsed().as_secs_f64());
                    break applied;
                }
                Err(StoreError::Overtaken { partition }) => {
                    let moved = self.offsets().await?;
                    if moved == *offsets {
                        return Err(StoreError::Overtaken { partition });
                    }
                    *offsets = moved;
                }
                Err(error) => return Err(error),
            }
        };
        for stretch in seen {
            let offset = offsets.entry(stretch.partition).or_default();
            *offset = stretch.next_offset.max(*offset);
        }
        self.metrics.projected.inc_by(applied.inserted);
        self.metrics.duplicates.inc_by(applied.duplicates);
        for verdict_id in applied.divergent {
            self.metrics.divergence.inc();
            tracing::warn!(%verdict_id, "a later verdict of this id says something else; the first one stays");
        }
        Ok(())
    }

    fn rows(&self, batch: &ReadBatch) -> Vec<Row> {
        let partition = batch.partition.partition;
        let mut rows = Vec::with_capacity(batch.records.len());
        for record in &batch.records {
            let offset = record.position.offset;
            match Row::decode(Seat::new(partition, offset), record.value.as_ref()) {
                Ok((row, _)) => rows.push(row),
                Err(error) => {
                    self.metrics.undecodable.inc();
                    tracing::error!(partition, offset, "skipped on the verdict topic: {error}");
                }
            }
        }
        rows
    }
}

/// What a store that stands at `offsets` does not have of these stretches.
fn beyond(offsets: &Projected, seen: &[Stretch]) -> Result<Vec<Stretch>, StoreError> {
    let (mut stands, mut left) = (offsets.clone(), Vec::with_capacity(seen.len()));
    for stretch in seen {
        let partition = stretch.partition;
        let at = stands.get(&partition).copied();
        if stretch.expected > at {
            // It has gone back, such as to a backup: what lies between has to be read again.
            return Err(StoreError::Overtaken { partition });
        }
        if at.is_some_and(|at| at >= stretch.next_offset) {
            continue;
        }
        let rows = stretch.rows.iter().filter(|row| at.is_none_or(|at| row.seat.offset() >= at));
        left.push(Stretch { expected: at, rows: rows.cloned().collect(), ..*stretch });
        stands.insert(partition, stretch.next_offset);
    }
    Ok(left)
}

/// Nothing new, from where a reader stands.
fn standing(read: &Projected) -> Vec<Stretch> {
    let stretch = |(&partition, &at): (&i32, &i64)| Stretch {
        partition,
        expected: Some(at),
        next_offset: at,
        rows: Vec::new(),
    };
    read.iter().map(stretch).collect()
}

/// The first batch; while it is far behind, several: large transactions write the pages of scattered ids less often.
async fn gather(first: Option<ReadBatch>, reader: &mut dyn Reader) -> Result<Vec<ReadBatch>, StreamError> {
    let closed = || StreamError::Closed { what: "the verdict topic".to_owned() };
    let mut batches = vec![first.ok_or_else(closed)?];
    let mut records = batches[0].records.len();
    let mut newest = records;
    while newest >= BEHIND && records < RECORDS_MAX {
        // What is there already comes at once; what is not shall not hold up what is.
        let Ok(next) = tokio::time::timeout(GATHER_FOR, reader.next()).await else { break };
        let batch = next?.ok_or_else(closed)?;
        newest = batch.records.len();
        records += newest;
        batches.push(batch);
    }
    Ok(batches)
}

/// All partitions of a topic.
pub(crate) async fn partitions(log: &dyn Log, topic: &str) -> Result<Vec<TopicPartition>, StreamError> {
    let topics = log.topics().await?;
    let found = topics.into_iter().find(|description| *description.name == *topic);
    let found = found.ok_or_else(|| StreamError::UnknownTopic { topic: topic.to_owned() })?;
    Ok((0..found.partitions).map(|p| TopicPartition::new(Arc::clone(&found.name), p)).collect())
}

impl Stop {
    /// What no pause can mend ends the process.
    fn fatal(&self) -> Result<(), Exit> {
        match self {
            Self::Store(StoreError::Refused { .. }) => Err(ExitReason::Refused.because(self)),
            Self::Store(_) => Ok(()),
            Self::Log(error @ StreamError::OffsetOutOfRange { .. }) => {
                let why = "the store has followed another log: give this one a store of its own";
                Err(ExitReason::Refused.because(format_args!("{error}; {why}")))
            }
            Self::Log(error) => match error.disposition() {
                Disposition::Retry | Disposition::Pause => Ok(()),
                Disposition::Restart => Err(ExitReason::Temporary.because(self)),
                Disposition::Reject | Disposition::Fatal => Err(ExitReason::Unavailable.because(self)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{row, verdict};

    fn stretch(expected: Option<i64>, offsets: std::ops::Range<i64>) -> Stretch {
        let next_offset = offsets.end;
        let rows = offsets.map(|n| row(0, n, &verdict("default", "m", n.unsigned_abs())));
        Stretch { partition: 0, expected, next_offset, rows: rows.collect() }
    }

    #[test]
    fn what_the_store_has_is_left_out() {
        let seen = [stretch(None, 0..4), stretch(Some(4), 4..8)];
        let left = |at: i64| beyond(&Projected::from([(0, at)]), &seen);
        assert_eq!(beyond(&Projected::new(), &seen), Ok(seen.to_vec()));
        assert_eq!(left(2), Ok(vec![stretch(Some(2), 2..4), stretch(Some(4), 4..8)]));
        assert_eq!(left(6), Ok(vec![stretch(Some(6), 6..8)]));
        assert_eq!(left(9), Ok(vec![]), "another replica is ahead of this reader");
    }

    #[test]
    fn a_store_that_went_back_is_followed_anew() {
        let seen = [stretch(Some(4), 4..8)];
        let gone_back = Err(StoreError::Overtaken { partition: 0 });
        assert_eq!(beyond(&Projected::from([(0, 3)]), &seen), gone_back);
        assert_eq!(beyond(&Projected::new(), &seen), gone_back);
        let (read, back) = (Projected::from([(0, 4)]), Projected::from([(0, 3)]));
        assert_eq!(beyond(&read, &standing(&read)), Ok(vec![]));
        assert_eq!(beyond(&back, &standing(&read)), gone_back, "also while nothing comes");
    }
}
