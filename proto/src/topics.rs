//! Topics, groups and headers: the names that every process must agree on.

use bytes::Bytes;
use forensics::{InputPosition, Lane};

/// The workers' consumer group.
pub const WORKER_GROUP: &str = "touchstone-workers";

/// The topic names in use; configurable as a set.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    /// References of the live lane.
    pub media_live: String,
    /// References of the standard lane.
    pub media_standard: String,
    /// References of the bulk lane.
    pub media_bulk: String,
    /// The record of truth.
    pub verdicts: String,
    /// Records nobody can parse, and copies worth a look.
    pub dead_letters: String,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            media_live: "touchstone.media.live.v1".to_owned(),
            media_standard: "touchstone.media.standard.v1".to_owned(),
            media_bulk: "touchstone.media.bulk.v1".to_owned(),
            verdicts: "touchstone.verdicts.v1".to_owned(),
            dead_letters: "touchstone.dead-letters.v1".to_owned(),
        }
    }
}

impl Topics {
    /// The topic of a lane.
    pub fn media(&self, lane: Lane) -> &str {
        match lane {
            Lane::Live => &self.media_live,
            Lane::Standard => &self.media_standard,
            Lane::Bulk => &self.media_bulk,
        }
    }

    /// Every topic, for whoever has to have them all.
    pub fn all(&self) -> [&str; 5] {
        let [live, standard, bulk] = self.all_media();
        [live, standard, bulk, &self.verdicts, &self.dead_letters]
    }

    /// The media topics, most urgent first.
    pub fn all_media(&self) -> [&str; 3] {
        Lane::ALL.map(|lane| self.media(lane))
    }

    /// The lane of a media topic.
    pub fn lane(&self, topic: &str) -> Option<Lane> {
        Lane::ALL.into_iter().find(|&lane| self.media(lane) == topic)
    }
}

/// What to do about topics that do not exist.
pub fn missing(names: &[&str]) -> String {
    let names = names.join(", ");
    format!(
        "missing topics: {names}: run `touchstone-scheduler topics create`, or name others under [topics]"
    )
}

/// The key of a media's records, so that all of one media share a partition; `|` cannot occur in a tenant.
pub fn key(tenant: &str, media_id: &str) -> Bytes {
    Bytes::from(format!("{tenant}|{media_id}"))
}

/// Header names. Outcome records carry all of [`headers::OUTCOME`]: the auditor's proof needs nothing else. A copy on
/// the dead-letter topic is no outcome and carries none of them.
pub mod headers {
    /// `application/x-protobuf` or `application/json`.
    pub const CONTENT_TYPE: &str = "content-type";
    /// The tries so far, in decimal; 1 if absent.
    pub const ATTEMPT: &str = "attempt";
    /// The input record's topic.
    pub const INPUT_TOPIC: &str = "input-topic";
    /// The input record's partition, in decimal.
    pub const INPUT_PARTITION: &str = "input-partition";
    /// The input record's offset, in decimal.
    pub const INPUT_OFFSET: &str = "input-offset";
    /// The slot (transactional id) of the worker that wrote it.
    pub const SLOT: &str = "slot";
    /// The build that wrote it.
    pub const BUILD: &str = "build";
    /// [`super::AT_LEAST_ONCE`] where the outcome may be written again, and its offset may not be committed yet;
    /// absent where outcome and offset are one transaction.
    pub const DELIVERY: &str = "delivery";
    /// What an outcome record carries.
    pub const OUTCOME: [&str; 5] = [INPUT_TOPIC, INPUT_PARTITION, INPUT_OFFSET, SLOT, BUILD];
}

/// The value of [`headers::CONTENT_TYPE`] for protobuf.
pub const PROTOBUF: &str = "application/x-protobuf";

/// The value of [`headers::CONTENT_TYPE`] for the protobuf JSON mapping.
pub const JSON: &str = "application/json";

/// The value of [`headers::DELIVERY`].
pub const AT_LEAST_ONCE: &str = "at-least-once";

/// Whether an outcome's headers say that it may be there twice.
pub fn may_repeat(record: &[(String, Bytes)]) -> bool {
    record.iter().any(|(name, value)| name == headers::DELIVERY && value == AT_LEAST_ONCE)
}

/// The headers of an outcome record.
pub fn outcome_headers(input: &InputPosition, slot: &str, build: &str) -> Vec<(String, Bytes)> {
    use headers::{BUILD, CONTENT_TYPE, INPUT_OFFSET, INPUT_PARTITION, INPUT_TOPIC, SLOT};
    let text = |name: &str, value: String| (name.to_owned(), Bytes::from(value));
    vec![
        text(CONTENT_TYPE, PROTOBUF.to_owned()),
        text(INPUT_TOPIC, input.topic.clone()),
        text(INPUT_PARTITION, input.partition.to_string()),
        text(INPUT_OFFSET, input.offset.to_string()),
        text(SLOT, slot.to_owned()),
        text(BUILD, build.to_owned()),
    ]
}

/// Where an outcome record says its input stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An outcome of this input record.
    Input(InputPosition),
    /// No outcome: it carries no origin headers.
    Absent,
    /// Origin headers that cannot be read.
    Unreadable,
}

/// Reads the origin from a record's headers.
pub fn origin(record: &[(String, Bytes)]) -> Origin {
    let find = |name: &str| record.iter().find(|(n, _)| n == name).map(|(_, value)| value);
    let parts = (find(headers::INPUT_TOPIC), find(headers::INPUT_PARTITION), find(headers::INPUT_OFFSET));
    let (Some(topic), Some(partition), Some(offset)) = parts else {
        let none = parts == (None, None, None);
        return if none { Origin::Absent } else { Origin::Unreadable };
    };
    let number = |bytes: &Bytes| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let position = || {
        Some(InputPosition {
            topic: number(topic)?,
            partition: number(partition)?.parse().ok()?,
            offset: number(offset)?.parse().ok()?,
        })
    };
    position().map_or(Origin::Unreadable, Origin::Input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_names_its_origin() {
        let input =
            InputPosition { topic: "touchstone.media.bulk.v1".to_owned(), partition: 3, offset: 1 << 40 };
        let mut record = outcome_headers(&input, "worker-0", "0.1.0");
        assert_eq!(origin(&record), Origin::Input(input));
        assert_eq!(origin(&[]), Origin::Absent);
        record.retain(|(name, _)| name != headers::INPUT_OFFSET);
        assert_eq!(origin(&record), Origin::Unreadable);
    }

    #[test]
    fn each_lane_has_its_topic() {
        let topics = Topics::default();
        for lane in Lane::ALL {
            assert_eq!(topics.lane(topics.media(lane)), Some(lane));
        }
    }
}
