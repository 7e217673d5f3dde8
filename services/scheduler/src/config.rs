//! The settings: as written, and checked.

use std::collections::BTreeMap;
use std::time::Duration;

use forensics::BucketAllowList;
use ops::config::{ByteSize, ConfigError, HumanDuration, Problems};
use proto::server::ServerSettings;
use proto::topics::Topics;
use serde::{Deserialize, Serialize};
use stream::TopicSpec;

use crate::topics::TopicSettings;

/// What the knobs are when nobody sets them, and what each is for.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// The configuration file, as written.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct RawConfig {
    /// `[scheduler]`.
    pub scheduler: Settings,
    /// `[topics]`: the names in use.
    #[serde(default)]
    pub topics: Topics,
    /// `[buckets]`: tenant (or `*` for all) → `bucket`, `bucket/folder`, or `*` for any bucket. Without an entry
    /// nothing can be submitted.
    #[serde(default)]
    pub buckets: BTreeMap<String, Vec<String>>,
    /// `[grpc]`.
    pub grpc: ServerSettings,
}

/// The table `[scheduler]`; each knob is explained in [`DEFAULTS`].
#[derive(Debug, Clone, Deserialize, Serialize)]
#[allow(missing_docs, reason = "defaults.toml explains each knob, once")]
pub struct Settings {
    pub request_ids_for: HumanDuration,
    pub request_ids_max: usize,
    pub record_bytes_max: ByteSize,
    pub topics: TopicSettings,
}

/// Checked settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// The topic names in use.
    pub topics: Topics,
    /// The topics that must be there.
    pub topic_specs: Vec<TopicSpec>,
    /// Each tenant's buckets.
    pub buckets: BucketAllowList,
    /// How long a request id is remembered.
    pub request_ids_for: Duration,
    /// How many request ids are remembered.
    pub request_ids_max: usize,
    /// Bytes of one reference as a record.
    pub record_bytes_max: usize,
    /// The gRPC server, where the scheduler has one of its own.
    pub grpc: ServerSettings,
}

impl RawConfig {
    /// The checked configuration, or everything that is wrong with it.
    ///
    /// # Errors
    /// Buckets and tenants that break their grammar, knobs that would stop the service altogether.
    pub fn check(self) -> Result<Config, ConfigError> {
        let Settings { request_ids_for, request_ids_max, record_bytes_max, topics } = self.scheduler;
        let mut problems = Problems::default();
        let buckets = BucketAllowList::parse(&self.buckets).unwrap_or_else(|wrong| {
            wrong.into_iter().for_each(|why| problems.add("buckets", why));
            BucketAllowList::default()
        });
        problems.require(request_ids_max > 0, "scheduler.request_ids_max", "must be at least 1");
        problems.require(
            (1..=proto::server::MESSAGE_BYTES_MAX as u64).contains(&record_bytes_max.bytes()),
            "scheduler.record_bytes_max",
            "must be 1 byte to 1MiB, the largest message",
        );
        topics.check(&mut problems);
        problems.absorb(self.grpc.check());
        problems.finish(Config {
            topic_specs: topics.specs(&self.topics),
            topics: self.topics,
            buckets,
            request_ids_for: request_ids_for.get(),
            request_ids_max,
            record_bytes_max: record_bytes_max.as_usize(),
            grpc: self.grpc,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_admit_nothing() {
        let text = format!("{DEFAULTS}{}", proto::server::DEFAULTS);
        let mut raw: RawConfig = ops::config::load(&text, None, "", std::iter::empty()).unwrap();
        assert_eq!(raw.clone().check().unwrap().buckets, BucketAllowList::default());
        raw.buckets.insert("A".to_owned(), vec!["B".to_owned()]);
        raw.scheduler.request_ids_max = 0;
        assert_eq!(raw.check().unwrap_err().errors.len(), 3);
    }
}
