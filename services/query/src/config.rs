//! The settings: as written, and checked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ops::config::{ConfigError, HumanDuration, Problems, Secret};
use proto::server::ServerSettings;
use proto::topics::Topics;
use serde::{Deserialize, Serialize};

use crate::store::{Address, PostgresConfig, SqliteConfig, StoreConfig};

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
    pub audit_patience: HumanDuration,
    pub store: StoreSettings,
    pub projector: ProjectorSettings,
    pub watch: WatchSettings,
}

/// `[query.store]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[allow(missing_docs, reason = "defaults.toml explains each knob, once")]
pub struct StoreSettings {
    pub file: PathBuf,
    pub url: Secret,
    pub password_file: PathBuf,
    pub readers: usize,
    pub waiting_max: usize,
    pub connect_timeout: HumanDuration,
    pub statement_timeout: HumanDuration,
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
    /// How long an audit looks for an outcome before it says that it is missing.
    pub audit_patience: Duration,
    /// The store.
    pub store: StoreConfig,
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
        let Settings { worker_group, audits_max, audit_patience, store, projector, watch } = self.query;
        let mut problems = Problems::default();
        for (key, is_zero) in [
            ("query.audits_max", audits_max == 0),
            ("query.store.readers", store.readers == 0),
            ("query.store.waiting_max", store.waiting_max == 0),
            ("query.store.connect_timeout", store.connect_timeout.get().is_zero()),
            ("query.store.statement_timeout", store.statement_timeout.get().is_zero()),
            ("query.projector.pause_first", projector.pause_first.get().is_zero()),
            ("query.watch.watchers_max", watch.watchers_max == 0),
            ("query.watch.buffer", watch.buffer == 0),
            ("query.watch.heartbeat", watch.heartbeat.get().is_zero()),
        ] {
            problems.require(!is_zero, key, "must be more than nothing");
        }
        problems.require(!worker_group.is_empty(), "query.worker_group", "must name the workers' group");
        let store = store.check(&mut problems);
        problems.absorb(self.grpc.check());
        problems.into_result()?;
        Ok(Config {
            topics: self.topics,
            worker_group: worker_group.into(),
            audits_max,
            audit_patience: audit_patience.get(),
            store: store.expect("what keeps it from being one is a problem"),
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

impl StoreSettings {
    fn check(self, problems: &mut Problems) -> Option<StoreConfig> {
        let Self { file, url, password_file, readers, waiting_max, .. } = self;
        let named = |path: PathBuf| (!path.as_os_str().is_empty()).then_some(path);
        let (file, password_file) = (named(file), named(password_file));
        problems.require(
            password_file.is_none() || !url.is_empty(),
            "query.store.password_file",
            "goes with query.store.url",
        );
        match (file, url.is_empty()) {
            (Some(file), true) => Some(StoreConfig::Sqlite(SqliteConfig { file, readers, waiting_max })),
            (None, false) => {
                let address = problems.take("query.store.url", Address::parse(url.expose()))?;
                let once = !(address.has_password() && password_file.is_some());
                problems.require(once, "query.store.password_file", "query.store.url has a password already");
                Some(StoreConfig::Postgres(PostgresConfig {
                    address,
                    password_file,
                    readers,
                    waiting_max,
                    connect_timeout: self.connect_timeout.get(),
                    statement_timeout: self.statement_timeout.get(),
                }))
            }
            (None, true) => {
                problems.add("query.store", "must name a file (SQLite) or a url (PostgreSQL)");
                None
            }
            (Some(_), false) => {
                problems.add("query.store", "file and url are both set: leave one of them empty");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> RawConfig {
        let text = format!("{DEFAULTS}{}", proto::server::DEFAULTS);
        ops::config::load(&text, None, "", std::iter::empty()).unwrap()
    }

    #[test]
    fn the_defaults_lack_only_the_store_and_zeros_are_listed() {
        let errors = raw().check().unwrap_err().errors;
        assert!(matches!(&errors[..], [only] if only.starts_with("query.store: ")), "{errors:?}");
        let mut raw = raw();
        raw.query.store.file = "verdicts.db".into();
        let config = raw.clone().check().unwrap();
        // A killed worker's transaction stays open for 5 s, and the broker looks for such every 10 s.
        assert!(config.audit_patience > Duration::from_secs(5 + 10));
        raw.query.store.readers = 0;
        raw.query.watch.buffer = 0;
        raw.grpc.connections_max = 0;
        assert_eq!(raw.check().unwrap_err().errors.len(), 3);
    }

    #[test]
    fn the_store_is_one_of_two() {
        let with = |file: &str, url: &str, password_file: &str| {
            let mut raw = raw();
            raw.query.store.file = file.into();
            raw.query.store.url = Secret::new(url);
            raw.query.store.password_file = password_file.into();
            raw.check().map(|config| config.store)
        };
        assert!(matches!(with("verdicts.db", "", ""), Ok(StoreConfig::Sqlite(_))));
        let url = "postgresql://ada@localhost/verdicts";
        let Ok(StoreConfig::Postgres(config)) = with("", url, "/run/secrets/password") else {
            panic!("refused")
        };
        assert_eq!(config.password_file, Some("/run/secrets/password".into()));
        let wrong = |file, url, password_file| with(file, url, password_file).unwrap_err().errors.join("\n");
        assert!(wrong("verdicts.db", url, "").contains("both set"));
        assert!(wrong("verdicts.db", "", "/run/secrets/password").contains("password_file"));
        let twice = wrong("", "postgresql://ada:s3cret@localhost/verdicts", "/run/secrets/password");
        assert!(twice.contains("password already") && !twice.contains("s3cret"), "{twice}");
        assert!(wrong("", "postgresql://ada@db.example/verdicts", "").contains("sslmode"));
    }
}
