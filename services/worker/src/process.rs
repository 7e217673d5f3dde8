//! The configuration of the process: the tables of its rooms in one file, checked together.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use ops::OpsConfig;
use ops::config::{ConfigError, Problems};
use proto::topics::Topics;
use serde::{Deserialize, Serialize};
use stream::kafka::{KafkaConfig, KafkaSettings};

/// `TOUCHSTONE_WORKER__WORKER__SLOT`
const ENVIRONMENT_PREFIX: &str = "TOUCHSTONE_WORKER";

/// The file as written.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Raw {
    ops: OpsConfig,
    kafka: KafkaSettings,
    worker: worker::Settings,
    #[serde(default)]
    topics: Topics,
    #[serde(default)]
    buckets: BTreeMap<String, Vec<String>>,
    s3: media::S3Settings,
    decode: media::DecodeSettings,
}

/// Checked settings of a worker that has a process of its own.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) ops: OpsConfig,
    pub(crate) kafka: KafkaConfig,
    pub(crate) worker: worker::Config,
    pub(crate) engines: worker::EngineConfig,
    raw: Raw,
}

impl Process {
    /// Reads defaults, file and environment, and checks the whole: everything that is wrong, at once.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let tables = [ops::DEFAULTS, stream::KAFKA_DEFAULTS, worker::DEFAULTS, media::DEFAULTS];
        let raw: Raw = ops::config::load(&tables.join("\n"), file, ENVIRONMENT_PREFIX, environment)?;
        let Raw { ops, kafka, worker, topics, buckets, s3, decode } = raw.clone();
        let mut problems = Problems::default();
        let kafka = problems.absorb(kafka.check());
        let worker = problems.absorb(worker::RawConfig { worker, topics, buckets, s3, decode }.check());
        problems.into_result()?;
        let (Some(kafka), Some((worker, engines))) = (kafka, worker) else {
            unreachable!("what is missing was a problem")
        };
        Ok(Self { ops, kafka, worker, engines, raw })
    }

    /// Prints the configuration on standard output, secrets hidden.
    pub(crate) fn show(&self) -> ExitCode {
        ops::command_line::show(&self.raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(variables: &[(&str, &str)]) -> Result<Process, ConfigError> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Process::load(None, variables)
    }

    #[test]
    fn what_is_required_is_asked_for_by_name_all_at_once() {
        let errors = load(&[]).unwrap_err().errors;
        for key in ["kafka.bootstrap_servers", "worker.slot", "worker.engine.model", "worker.engine.faces"] {
            assert!(errors.iter().any(|error| error.starts_with(key)), "{key} in {errors:?}");
        }
        assert_eq!(errors.len(), 4, "and nothing else is: {errors:?}");
    }

    #[test]
    fn the_environment_is_enough() {
        let process = load(&[
            ("TOUCHSTONE_WORKER__KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9092"),
            ("TOUCHSTONE_WORKER__WORKER__SLOT", "worker-7"),
            ("TOUCHSTONE_WORKER__WORKER__ENGINE__MODEL", "scripted"),
            ("TOUCHSTONE_WORKER__WORKER__ENGINE__FACES", "scripted"),
            ("TOUCHSTONE_WORKER__BUCKETS__ACME", "[\"acme-media\"]"),
        ])
        .unwrap();
        assert_eq!(&*process.worker.slot, "worker-7");
        let errors = load(&[("TOUCHSTONE_WORKER__WORKER__SLOTS", "worker-7")]).unwrap_err().errors;
        assert!(errors.iter().any(|error| error.contains("worker.slots: unknown key")), "{errors:?}");
    }
}
