//! A reader without a group.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::Core;
use super::catalog::Partition;
use super::read::fetch;
use crate::error::StreamError;
use crate::log::{ReadBatch, ReadEnd, Reader};
use crate::member::FetchBounds;

/// Reads partitions in turn.
pub(crate) struct LocalReader {
    core: Arc<Core>,
    places: Vec<Place>,
    turn: usize,
    appended: watch::Receiver<u64>,
}

struct Place {
    partition: Arc<Partition>,
    next_offset: i64,
    /// Where to stop; `None`: never.
    end: Option<i64>,
}

impl LocalReader {
    pub(crate) fn new(
        core: Arc<Core>,
        from: Vec<(Arc<Partition>, i64)>,
        until: ReadEnd,
    ) -> Result<Self, StreamError> {
        let mut places = Vec::with_capacity(from.len());
        for (partition, offset) in from {
            let high = partition.high();
            if offset > high {
                return Err(StreamError::OffsetOutOfRange {
                    partition: partition.name.clone(),
                    offset,
                    high,
                });
            }
            let end = (until == ReadEnd::Watermark).then_some(high);
            places.push(Place { next_offset: offset.max(partition.low()), partition, end });
        }
        let appended = core.shared.appended.subscribe();
        Ok(Self { core, places, turn: 0, appended })
    }
}

#[async_trait]
impl Reader for LocalReader {
    async fn next(&mut self) -> Result<Option<ReadBatch>, StreamError> {
        loop {
            if self.core.shared.is_closed() {
                return Err(self.core.shared.closed_error());
            }
            // Seen before looking: what is appended while we look wakes us up again.
            self.appended.borrow_and_update();
            let count = self.places.len();
            let behind = (0..count).map(|step| (self.turn + step) % count).find(|index| {
                let place = &self.places[*index];
                place.next_offset < place.until()
            });
            if let Some(index) = behind {
                let place = &self.places[index];
                let until = place.until();
                let range = place.next_offset..until;
                let records =
                    fetch(&self.core.shared, &place.partition, range, FetchBounds::default()).await?;
                let next_offset = records.last().map_or(until, |record| record.position.offset + 1);
                let partition = place.partition.name.clone();
                // Only now, with nothing left to await: an abandoned call must not skip what it fetched.
                self.places[index].next_offset = next_offset;
                self.turn = index + 1;
                return Ok(Some(ReadBatch { partition, records, next_offset }));
            }
            if self.places.iter().all(|place| place.end.is_some()) {
                return Ok(None);
            }
            if self.appended.changed().await.is_err() {
                return Err(self.core.shared.closed_error());
            }
        }
    }
}

impl Place {
    fn until(&self) -> i64 {
        self.end.unwrap_or_else(|| self.partition.high())
    }
}
