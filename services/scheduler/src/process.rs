//! The configuration of the process: the tables of its rooms in one file, checked together.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use ops::OpsConfig;
use ops::config::{ConfigError, Problems};
use proto::server::ServerSettings;
use proto::topics::Topics;
use serde::{Deserialize, Serialize};
use stream::kafka::{KafkaConfig, KafkaSettings};

/// `TOUCHSTONE_SCHEDULER__GRPC__LISTEN`
const ENVIRONMENT_PREFIX: &str = "TOUCHSTONE_SCHEDULER";

/// The file as written.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Raw {
    ops: OpsConfig,
    kafka: KafkaSettings,
    scheduler: scheduler::Settings,
    #[serde(default)]
    topics: Topics,
    #[serde(default)]
    buckets: BTreeMap<String, Vec<String>>,
    grpc: ServerSettings,
}

/// Checked settings of a scheduler that has a process of its own.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) ops: OpsConfig,
    pub(crate) kafka: KafkaConfig,
    pub(crate) scheduler: scheduler::Config,
    raw: Raw,
}

impl Process {
    /// Reads defaults, file and environment, and checks the whole: everything that is wrong, at once.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let tables = [ops::DEFAULTS, stream::KAFKA_DEFAULTS, scheduler::DEFAULTS, proto::server::DEFAULTS];
        let raw: Raw = ops::config::load(&tables.join("\n"), file, ENVIRONMENT_PREFIX, environment)?;
        let Raw { ops, kafka, scheduler, topics, buckets, grpc } = raw.clone();
        let mut problems = Problems::default();
        let kafka = problems.absorb(kafka.check());
        let scheduler = problems.absorb(scheduler::RawConfig { scheduler, topics, buckets, grpc }.check());
        problems.into_result()?;
        let (Some(kafka), Some(scheduler)) = (kafka, scheduler) else {
            unreachable!("what is missing was a problem")
        };
        Ok(Self { ops, kafka, scheduler, raw })
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
    fn only_the_broker_is_required() {
        let errors = load(&[]).unwrap_err().errors;
        assert!(matches!(&errors[..], [only] if only.starts_with("kafka.bootstrap_servers")), "{errors:?}");
        let broker = ("TOUCHSTONE_SCHEDULER__KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9092");
        assert_eq!(load(&[broker]).unwrap().scheduler.topic_specs.len(), 5);
        let unknown = ("TOUCHSTONE_SCHEDULER__SCHEDULER__TOPICS__PARTITION", "4");
        let errors = load(&[broker, unknown]).unwrap_err().errors;
        assert!(errors[0].contains("scheduler.topics.partition: unknown key"), "{errors:?}");
    }
}
