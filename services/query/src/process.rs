//! The configuration of the process: the tables of its rooms in one file, checked together.

use std::path::Path;
use std::process::ExitCode;

use ops::OpsConfig;
use ops::config::{ConfigError, Problems};
use proto::server::ServerSettings;
use proto::topics::Topics;
use serde::{Deserialize, Serialize};
use stream::kafka::{KafkaConfig, KafkaSettings};

/// `TOUCHSTONE_QUERY__QUERY__STORE__FILE`
const ENVIRONMENT_PREFIX: &str = "TOUCHSTONE_QUERY";

/// Of `grpc.listen`: the scheduler of the same machine has 7700.
const PORT: u16 = 7701;

/// The file as written.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Raw {
    ops: OpsConfig,
    kafka: KafkaSettings,
    query: query::Settings,
    #[serde(default)]
    topics: Topics,
    grpc: ServerSettings,
}

/// Checked settings of a query that has a process of its own.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) ops: OpsConfig,
    pub(crate) kafka: KafkaConfig,
    pub(crate) query: query::Config,
    raw: Raw,
}

impl Process {
    /// Reads defaults, file and environment, and checks the whole: everything that is wrong, at once.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let server = proto::server::defaults_on(PORT);
        let tables = [ops::DEFAULTS, stream::KAFKA_DEFAULTS, query::DEFAULTS, &server];
        let raw: Raw = ops::config::load(&tables.join("\n"), file, ENVIRONMENT_PREFIX, environment)?;
        let Raw { ops, kafka, query, topics, grpc } = raw.clone();
        let mut problems = Problems::default();
        let kafka = problems.absorb(kafka.check());
        let query = problems.absorb(query::RawConfig { query, topics, grpc }.check());
        problems.into_result()?;
        let (Some(kafka), Some(query)) = (kafka, query) else {
            unreachable!("what is missing was a problem")
        };
        Ok(Self { ops, kafka, query, raw })
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
    fn a_broker_and_a_store_are_required_and_nothing_else() {
        let errors = load(&[]).unwrap_err().errors;
        let keys = ["kafka.bootstrap_servers", "query.store"];
        assert!(keys.iter().all(|key| errors.iter().any(|error| error.starts_with(key))), "{errors:?}");
        assert_eq!(errors.len(), keys.len(), "{errors:?}");
        let broker = ("TOUCHSTONE_QUERY__KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9092");
        let store = ("TOUCHSTONE_QUERY__QUERY__STORE__FILE", "/data/verdicts.db");
        let query = load(&[broker, store]).unwrap().query;
        assert_eq!((&*query.worker_group, query.grpc.listen.port()), (proto::topics::WORKER_GROUP, PORT));
        let unknown = ("TOUCHSTONE_QUERY__QUERY__STORE__FOLDER", "/data");
        let errors = load(&[broker, store, unknown]).unwrap_err().errors;
        assert!(errors[0].contains("query.store.folder: unknown key"), "{errors:?}");
    }
}
