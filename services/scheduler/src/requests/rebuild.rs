//! After a start the window is read back from the tail of the media topics.

use std::time::{Duration, Instant, SystemTime};

use forensics::MediaReference;
use prost::Message;
use proto::convert::unix_ms;
use proto::topics::Topics;
use proto::v1;
use stream::{Log, Position, ReadEnd, Record, StreamError, TopicPartition};

use super::{Fingerprint, RequestName, Requests};

/// Reads what was submitted within the window; how many request ids it found.
///
/// # Errors
/// Whatever keeps the log from answering, and topics that do not exist.
pub(crate) async fn rebuild(
    log: &dyn Log,
    topics: &Topics,
    requests: &Requests,
) -> Result<usize, StreamError> {
    let (now, now_ms) = (Instant::now(), unix_ms(SystemTime::now()));
    let window_ms = i64::try_from(requests.keep_for.as_millis()).unwrap_or(i64::MAX);
    let mut found = Vec::new();
    for partition in partitions(log, topics).await? {
        let from = log.offset_at(&partition, now_ms.saturating_sub(window_ms)).await?;
        let mut reader = log.read(vec![(partition, from)], ReadEnd::Watermark).await?;
        while let Some(batch) = reader.next().await? {
            found.extend(batch.records.iter().filter_map(remembered));
        }
        // Other partitions' may be younger; what is beyond the bound in one is beyond it in all.
        let excess = found.len().saturating_sub(2 * requests.ids_max);
        if excess > 0 {
            found.sort_unstable_by_key(|one| one.at_ms);
            found.drain(..found.len() - requests.ids_max);
        }
    }
    found.sort_unstable_by_key(|one| one.at_ms);
    let count = found.len();
    for one in found {
        let age = Duration::from_millis(u64::try_from(now_ms - one.at_ms).unwrap_or(0));
        let at = now.checked_sub(age).unwrap_or(now);
        requests.remember(one.name, one.fingerprint, one.position, at);
    }
    Ok(count)
}

async fn partitions(log: &dyn Log, topics: &Topics) -> Result<Vec<TopicPartition>, StreamError> {
    let described = log.topics().await?;
    let mut partitions = Vec::new();
    for topic in topics.all_media() {
        let found = described.iter().find(|description| *description.name == *topic);
        let found = found.ok_or_else(|| StreamError::UnknownTopic { topic: topic.to_owned() })?;
        partitions.extend((0..found.partitions).map(|p| TopicPartition::new(topic, p)));
    }
    Ok(partitions)
}

struct Remembered {
    at_ms: i64,
    name: RequestName,
    fingerprint: Fingerprint,
    position: Position,
}

/// Records of other producers need not be readable: their request ids were never ours to answer.
fn remembered(record: &Record) -> Option<Remembered> {
    let wire = v1::MediaReference::decode(record.value.clone()?).ok()?;
    let reference = MediaReference::try_from(wire).ok()?;
    Some(Remembered {
        at_ms: record.timestamp_ms,
        name: RequestName::new(&reference.tenant, reference.request_id.as_deref()?),
        fingerprint: Fingerprint::of(&reference),
        position: record.position.clone(),
    })
}
