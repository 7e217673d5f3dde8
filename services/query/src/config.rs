//! The settings: as written, and checked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ops::config::{ConfigError, HumanDuration, Problems};
use proto::server::ServerSettings;
use proto::topics::Topics;
use serde::{Deserialize, Serialize};

use crate::store::SqliteConfig;

/// What the knobs are when nobody sets them, and what each is for.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// The configuration file, as written.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct RawConfig {
    /// `[query…]`.
    pub query: Settings,
    /// `[topics]`: the names in use.
    #[serde(default)]
    pub topics: Topics,
    /// `[grpc]`.
    pub grpc: ServerSettings,
}

/// The tables `[query…]`; each knob is explained in [`DEFAULTS`].
#[derive(Debug, Clone, Deserialize, Serialize)]
#[allow(missing_docs, reason = "defaults.toml explains each knob, once")]
pub struct Settings {
    pub worker_group: String,
    pub audits_max: usize,
    pub store: StoreSettings,
    pub projector: ProjectorSettings,
    pub watch: WatchSettings,
}

/// `[query.store]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[allow(missing_docs, reason = "defaults.toml explains each knob, once")]
pub struct StoreSettings {
    pub file: PathBuf,
    pub readers: usize,
    pub waiting_max: usize,
}

/// `[query.projector]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[allow(missing_docs, reason = "defaults.toml explains each knob, once")]
pub struct ProjectorSettings {
    pub pause_first: HumanDuration,
    pub pause_max: HumanDuration,
}

/// `[query.watch]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[allow(missing_docs, reason = "defaults.toml explains each knob, once")]
pub struct WatchSettings {
    pub watchers_max: usize,
    pub buffer: usize,
    pub patience: HumanDuration,
    pub heartbeat: HumanDuration,
}

/// Checked settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// The topic names in use.
    pub topics: Topics,
    /// The workers' consumer group.
    pub worker_group: Arc<str>,
    /// Audits at once.
    pub audits_max: usize,
    /// The store.
    pub store: SqliteConfig,
    /// The projector's pauses after a failure: the first, and the longest.
    pub pauses: (Duration, Duration),
    /// Watchers.
    pub watch: WatchConfig,
    /// The gRPC server, where query has one of its own.
    pub grpc: ServerSettings,
}

/// Checked settings of watchers.
#[derive(Debug, Clone)]
pub struct WatchConfig {
    /// Watchers at once.
    pub watchers_max: usize,
    /// Verdicts that wait for one watcher.
    pub buffer: usize,
    /// How long its buffer may be full.
    pub patience: Duration,
    /// How long its stream may be silent.
    pub heartbeat: Duration,
}

impl RawConfig {
    /// The checked configuration, or everything that is wrong with it.
    ///
    /// # Errors
    /// Knobs that would stop the service altogether.
    pub fn check(self) -> Result<Config, ConfigError> {
        let Settings { worker_group, audits_max, store, projector, watch } = self.query;
        let mut problems = Problems::default();
        for (key, is_zero) in [
            ("query.audits_max", audits_max == 0),
            ("query.store.readers", store.readers == 0),
            ("query.store.waiting_max", store.waiting_max == 0),
            ("query.projector.pause_first", projector.pause_first.get().is_zero()),
            ("query.watch.watchers_max", watch.watchers_max == 0),
            ("query.watch.buffer", watch.buffer == 0),
            ("query.watch.heartbeat", watch.heartbeat.get().is_zero()),
        ] {
            problems.require(!is_zero, key, "must be more than nothing");
        }
        problems.require(!worker_group.is_empty(), "query.worker_group", "must name the workers' group");
        let unnamed = store.file.as_os_str().is_empty();
        problems.require(!unnamed, "query.store.file", "must name a file");
        problems.absorb(self.grpc.check());
        problems.finish(Config {
            topics: self.topics,
            worker_group: worker_group.into(),
            audits_max,
            store: SqliteConfig { file: store.file, readers: store.readers, waiting_max: store.waiting_max },
            pauses: (projector.pause_first.get(), projector.pause_max.get()),
            watch: WatchConfig {
                watchers_max: watch.watchers_max,
                buffer: watch.buffer,
                patience: watch.patience.get(),
                heartbeat: watch.heartbeat.get(),
            },
            grpc: self.grpc,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_zeros_are_listed() {
        let text = format!("{DEFAULTS}{}", proto::server::DEFAULTS);
        let mut raw: RawConfig = ops::config::load(&text, None, "", std::iter::empty()).unwrap();
        assert!(raw.clone().check().is_ok());
        raw.query.store.readers = 0;
        raw.query.watch.buffer = 0;
        raw.grpc.connections_max = 0;
        assert_eq!(raw.check().unwrap_err().errors.len(), 3);
    }
}
