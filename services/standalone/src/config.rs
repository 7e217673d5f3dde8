//! The settings of everything in this process: one file, one check.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use forensics::{Bucket, Thresholds, scripted};
use ops::OpsConfig;
use ops::config::{ByteSize, ConfigError, HumanDuration, Problems, Secret};
use proto::server::ServerSettings;
use proto::topics::Topics;
use serde::{Deserialize, Serialize};
use stream::TopicSpec;
use stream::local::{LocalConfig, Synchronous};

use crate::object_store::ObjectStoreServer;

const DEFAULTS: &str = include_str!("../defaults.toml");

/// `TOUCHSTONE_STANDALONE__STANDALONE__WORKERS`
const ENVIRONMENT_PREFIX: &str = "TOUCHSTONE_STANDALONE";

/// What the command line says; it beats file and environment.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "main.rs and defaults.toml explain each, once")]
pub struct Overrides {
    pub file: Option<PathBuf>,
    pub data: Option<PathBuf>,
    pub workers: Option<usize>,
    pub listen: Option<SocketAddr>,
    pub allow_remote: bool,
    pub model: Option<String>,
    pub face_detector: Option<String>,
    pub level: Option<String>,
}

/// The file as written: this process's own tables and those of its rooms.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Raw {
    standalone: Settings,
    ops: OpsConfig,
    worker: worker::Settings,
    #[serde(default)]
    topics: Topics,
    #[serde(default)]
    buckets: BTreeMap<String, Vec<String>>,
    s3: media::S3Settings,
    decode: media::DecodeSettings,
    scheduler: scheduler::Settings,
    query: query::Settings,
    grpc: ServerSettings,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Settings {
    data: PathBuf,
    workers: usize,
    listen: SocketAddr,
    s3_listen: SocketAddr,
    allow_remote: bool,
    bucket: String,
    model: String,
    face_detector: String,
    log: LogSettings,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct LogSettings {
    synchronous: String,
    bytes_max: ByteSize,
    tidy_pause: HumanDuration,
}

/// Checked settings of one standalone.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder that holds everything.
    pub folder: PathBuf,
    /// What the process needs: admin port, drain deadline, logging.
    pub ops: OpsConfig,
    synchronous: Synchronous,
    raw: Raw,
}

impl Config {
    /// Reads defaults, file, environment and command line, and checks the whole.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(
        overrides: Overrides,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let tables = [
            DEFAULTS,
            ops::DEFAULTS,
            worker::DEFAULTS,
            media::DEFAULTS,
            scheduler::DEFAULTS,
            query::DEFAULTS,
            proto::server::DEFAULTS,
        ];
        let defaults = tables.join("\n");
        let file = overrides.file.clone();
        let raw: Raw = ops::config::load(&defaults, file.as_deref(), ENVIRONMENT_PREFIX, environment)?;
        overrides.lay_over(raw)?.check()
    }

    /// Prints the configuration on standard output, secrets hidden.
    pub fn show(&self) -> ExitCode {
        ops::command_line::show(&self.raw)
    }

    /// How many workers run here.
    pub(crate) fn workers(&self) -> usize {
        self.raw.standalone.workers
    }

    pub(crate) fn listen(&self) -> SocketAddr {
        self.raw.standalone.listen
    }

    pub(crate) fn s3_listen(&self) -> SocketAddr {
        self.raw.standalone.s3_listen
    }

    pub(crate) fn bucket(&self) -> &str {
        &self.raw.standalone.bucket
    }

    pub(crate) fn model(&self) -> &str {
        &self.raw.standalone.model
    }

    /// Where the operator lets the answers begin; `None`: where the bundle does.
    pub(crate) fn thresholds(&self) -> Option<Thresholds> {
        match *self.raw.worker.policy.thresholds {
            [forged, authentic] => Thresholds::new(forged, authentic),
            _ => None,
        }
    }

    pub(crate) fn grpc(&self) -> &ServerSettings {
        &self.raw.grpc
    }

    pub(crate) fn log(&self) -> LocalConfig {
        let bytes_max = self.raw.standalone.log.bytes_max.bytes();
        LocalConfig {
            synchronous: self.synchronous,
            bytes_max: (bytes_max > 0).then_some(bytes_max),
            ..LocalConfig::new(self.folder.join("log"))
        }
    }

    pub(crate) fn tidy_pause(&self) -> Duration {
        self.raw.standalone.log.tidy_pause.get()
    }

    /// The topics that must be there before anything starts.
    pub(crate) fn topics(&self) -> Vec<TopicSpec> {
        self.raw.scheduler.topics.specs(&self.raw.topics)
    }

    pub(crate) fn scheduler(&self) -> Result<scheduler::Config, ConfigError> {
        let Raw { scheduler, topics, grpc, .. } = self.raw.clone();
        scheduler::RawConfig { scheduler, topics, buckets: self.raw.buckets(), grpc }.check()
    }

    pub(crate) fn query(&self) -> Result<query::Config, ConfigError> {
        let Raw { mut query, topics, grpc, .. } = self.raw.clone();
        query.store.file = self.folder.join("store").join("verdicts.db");
        query.store.url = Secret::new("");
        query.worker_group.clone_from(&self.raw.worker.group);
        query::RawConfig { query, topics, grpc }.check()
    }

    /// The worker of this number, reading from `store`.
    pub(crate) fn worker(
        &self,
        number: usize,
        store: &ObjectStoreServer,
    ) -> Result<(worker::Config, worker::EngineConfig), ConfigError> {
        self.raw.worker(number, self.s3(store))
    }

    /// Settings of a client of the embedded store.
    pub(crate) fn s3_client(&self, store: &ObjectStoreServer) -> Result<media::S3Config, ConfigError> {
        self.s3(store).check()
    }

    /// The store's table, with where the embedded store listens and its keys.
    fn s3(&self, store: &ObjectStoreServer) -> media::S3Settings {
        let mut s3 = self.raw.s3.clone();
        s3.endpoint.clone_from(&store.endpoint);
        s3.access_key_id.clone_from(&store.credentials.access_key);
        s3.secret_access_key = store.credentials.secret_key.clone();
        s3
    }
}

impl Overrides {
    fn lay_over(self, mut raw: Raw) -> Result<Raw, ConfigError> {
        let settings = &mut raw.standalone;
        settings.data = self.data.unwrap_or_else(|| settings.data.clone());
        settings.workers = self.workers.unwrap_or(settings.workers);
        settings.listen = self.listen.unwrap_or(settings.listen);
        settings.allow_remote |= self.allow_remote;
        settings.model = self.model.unwrap_or_else(|| settings.model.clone());
        settings.face_detector = self.face_detector.unwrap_or_else(|| settings.face_detector.clone());
        if settings.model == scripted::NAME {
            settings.face_detector = scripted::NAME.to_owned();
        }
        if let Some(level) = self.level {
            let level = level.try_into().map_err(|why| ConfigError { errors: vec![why] })?;
            raw.ops.telemetry.level = level;
        }
        Ok(raw)
    }
}

impl Raw {
    fn check(self) -> Result<Config, ConfigError> {
        let mut problems = Problems::default();
        let settings = &self.standalone;
        let unnamed = settings.data.as_os_str().is_empty();
        problems.require(
            !unnamed,
            "standalone.data",
            "is required: --data DIR, the folder that holds everything",
        );
        problems.require((1..=64).contains(&settings.workers), "standalone.workers", "must be 1 to 64");
        let log = &settings.log;
        let calm = log.tidy_pause.get() >= Duration::from_secs(1);
        problems.require(calm, "standalone.log.tidy_pause", "must be at least 1s");
        let synchronous = match &*log.synchronous {
            "full" => Synchronous::Full,
            "normal" => Synchronous::Normal,
            other => {
                problems
                    .add("standalone.log.synchronous", format_args!("must be full or normal, got {other}"));
                Synchronous::Full
            }
        };
        problems.take("standalone.bucket", Bucket::parse(&settings.bucket));
        problems.require(self.s3.endpoint.is_empty(), "s3.endpoint", "standalone has its own object store");
        let store = &self.query.store;
        let own = store.file.as_os_str().is_empty() && store.url.is_empty();
        problems.require(own, "query.store", "standalone has its own store, in its folder");
        for (key, listener) in [
            ("standalone.listen", settings.listen),
            ("standalone.s3_listen", settings.s3_listen),
            ("ops.admin_listen", self.ops.admin_listen),
        ] {
            problems.require(
                listener.ip().is_loopback() || settings.allow_remote,
                key,
                format_args!(
                    "{listener} is not on loopback, and nothing here asks a caller who it is; \
                              say --allow-remote if that is what you want"
                ),
            );
        }
        let config =
            Config { folder: settings.data.clone(), ops: self.ops.clone(), synchronous, raw: self.clone() };
        problems.absorb(config.scheduler());
        problems.absorb(config.query());
        problems.absorb(self.worker(0, self.s3_placeholder()));
        problems.finish(config)
    }

    /// The bucket made here is everyone's; others are as the file says.
    fn buckets(&self) -> BTreeMap<String, Vec<String>> {
        let mut buckets = self.buckets.clone();
        buckets.entry("*".to_owned()).or_default().push(self.standalone.bucket.clone());
        buckets
    }

    /// Where the store listens, and with which keys, is known once it runs.
    fn s3_placeholder(&self) -> media::S3Settings {
        let (access_key_id, secret_access_key) = ("made-at-start".to_owned(), Secret::new("made-at-start"));
        media::S3Settings { access_key_id, secret_access_key, ..self.s3.clone() }
    }

    fn worker(
        &self,
        number: usize,
        s3: media::S3Settings,
    ) -> Result<(worker::Config, worker::EngineConfig), ConfigError> {
        let Raw { mut worker, topics, decode, standalone, .. } = self.clone();
        worker.slot = format!("standalone-{number}");
        worker.engine.model = standalone.model;
        worker.engine.faces = standalone.face_detector;
        worker::RawConfig { worker, topics, buckets: self.buckets(), s3, decode }.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(overrides: Overrides, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(Overrides { data: Some("/somewhere".into()), ..overrides }, environment)
    }

    #[test]
    fn the_defaults_lack_only_the_folder() {
        let errors = Config::load(Overrides::default(), std::iter::empty()).unwrap_err().errors;
        assert!(matches!(&errors[..], [only] if only.starts_with("standalone.data")), "{errors:?}");
        let config = load(Overrides::default(), &[]).unwrap();
        assert_eq!((config.model(), config.workers()), ("models/default", 1));
        assert_eq!(config.topics().len(), 5);
    }

    #[test]
    fn listeners_stay_on_loopback_unless_told_otherwise() {
        let listen: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let errors =
            load(Overrides { listen: Some(listen), ..Overrides::default() }, &[]).unwrap_err().errors;
        assert!(errors[0].contains("--allow-remote"), "{errors:?}");
        let told = Overrides { listen: Some(listen), allow_remote: true, ..Overrides::default() };
        assert_eq!(load(told, &[]).unwrap().listen(), listen);
        let admin = [("TOUCHSTONE_STANDALONE__OPS__ADMIN_LISTEN", "[::]:9000")];
        assert!(load(Overrides::default(), &admin).is_err());
    }

    #[test]
    fn a_scripted_model_finds_scripted_faces_and_errors_are_listed_together() {
        let scripted = Overrides { model: Some("scripted".to_owned()), ..Overrides::default() };
        assert_eq!(load(scripted, &[]).unwrap().raw.standalone.face_detector, "scripted");
        let environment = [
            ("TOUCHSTONE_STANDALONE__STANDALONE__BUCKET", "No Bucket"),
            ("TOUCHSTONE_STANDALONE__STANDALONE__LOG__SYNCHRONOUS", "never"),
            ("TOUCHSTONE_STANDALONE__QUERY__STORE__READERS", "0"),
            ("TOUCHSTONE_STANDALONE__WORKER__INTAKE__JOBS_MAX", "0"),
            ("TOUCHSTONE_STANDALONE__S3__ENDPOINT", "http://127.0.0.1:9000"),
            ("TOUCHSTONE_STANDALONE__QUERY__STORE__URL", "postgresql://ada@localhost/verdicts"),
        ];
        let errors = load(Overrides::default(), &environment).unwrap_err().errors;
        let keys = [
            "standalone.bucket",
            "log.synchronous",
            "query.store.readers",
            "jobs_max",
            "s3.endpoint",
            "own store",
        ];
        for key in keys {
            assert!(errors.iter().any(|error| error.contains(key)), "{key} in {errors:?}");
        }
    }
}
