//! Which topics there are and how many partitions they have, as of the last look.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::client::Ear;
use super::error::{Doing, told};
use super::records::{Row, check_headers};
use crate::error::StreamError;
use crate::partitioner::partition_of_key;
use crate::record::{NewRecord, TopicPartition};

/// Topics and their partition counts.
pub(crate) type Counts = BTreeMap<Arc<str>, i32>;

/// The topics as of the last look. Everything that is asked for and not found is looked for once more.
#[derive(Default)]
pub(crate) struct Catalog {
    /// Guards the last look; held to replace or share it.
    counts: Mutex<Arc<Counts>>,
    /// Where the next record without a key goes.
    keyless: AtomicUsize,
}

impl Catalog {
    pub(crate) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks again. Blocks for a request.
    pub(crate) fn refresh(
        &self,
        client: &BaseConsumer<Ear>,
        timeout: Duration,
    ) -> Result<Arc<Counts>, StreamError> {
        let metadata = client
            .fetch_metadata(None, timeout)
            .map_err(|error| told(Doing::Asking("the topics"), &error))?;
        let mut counts = Counts::new();
        for topic in metadata.topics() {
            let partitions = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
            // A topic that is being made or deleted has an error or no partitions yet.
            if topic.error().is_none() && partitions > 0 {
                counts.insert(topic.name().into(), partitions);
            }
        }
        let counts = Arc::new(counts);
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&counts);
        Ok(counts)
    }

    /// Decides each record's place; what it does not know is an error.
    pub(crate) fn place(&self, counts: &Counts, records: Vec<NewRecord>) -> Result<Vec<Row>, StreamError> {
        records.into_iter().map(|record| self.row(counts, record)).collect()
    }

    fn row(&self, counts: &Counts, record: NewRecord) -> Result<Row, StreamError> {
        check_headers(&record)?;
        let count = partition_count(counts, &record.topic)?;
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) => {
                check_partition(counts, &record.topic, partition)?;
                partition
            }
            (None, Some(key)) => partition_of_key(key, count),
            (None, None) => {
                let turn = self.keyless.fetch_add(1, Ordering::Relaxed);
                i32::try_from(turn % usize::try_from(count).unwrap_or(1)).unwrap_or_default()
            }
        };
        Ok(Row { record, partition })
    }
}

/// Whether all these are there.
pub(crate) fn knows<'a>(
    counts: &Counts,
    places: impl IntoIterator<Item = (&'a str, Option<i32>)>,
) -> Result<(), StreamError> {
    for (topic, partition) in places {
        match partition {
            None => drop(partition_count(counts, topic)?),
            Some(partition) => check_partition(counts, topic, partition)?,
        }
    }
    Ok(())
}

fn partition_count(counts: &Counts, topic: &str) -> Result<i32, StreamError> {
    counts.get(topic).copied().ok_or_else(|| StreamError::UnknownTopic { topic: topic.to_owned() })
}

fn check_partition(counts: &Counts, topic: &str, partition: i32) -> Result<(), StreamError> {
    let partitions = partition_count(counts, topic)?;
    if (0..partitions).contains(&partition) {
        return Ok(());
    }
    Err(StreamError::UnknownPartition { partition: TopicPartition::new(topic, partition), partitions })
}
