//! Logs: to standard error, for people (`pretty`) or for machines (`json`).

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// How this process logs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct TelemetryConfig {
    /// For people or for machines.
    pub format: Format,
    /// What is logged.
    pub level: Level,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One line of text, in colour on a terminal.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// A level or a list of directives, such as `info` or `info,stream=debug`; checked when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Level(String);

impl TryFrom<String> for Level {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match EnvFilter::try_new(&text) {
            Ok(_) => Ok(Level(text)),
            Err(error) => Err(format!("not a log level: {error}")),
        }
    }
}

impl From<Level> for String {
    fn from(level: Level) -> Self {
        level.0
    }
}

/// Starts logging. The subscriber is the one thing a process has only once: a second call (two services in
/// one process, tests) leaves the first in place and says `false`.
pub fn init(config: &TelemetryConfig) -> bool {
    init_to(config, BoxMakeWriter::new(std::io::stderr), std::io::stderr().is_terminal())
}

fn init_to(config: &TelemetryConfig, writer: BoxMakeWriter, colour: bool) -> bool {
    let filter = EnvFilter::new(&config.level.0);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match config.format {
        Format::Pretty => builder.with_ansi(colour).with_target(false).try_init().is_ok(),
        Format::Json => builder.json().flatten_event(true).try_init().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_is_harmless() {
        let config = TelemetryConfig { format: Format::Json, level: Level("warn".into()) };
        init(&config);
        assert!(!init(&config));
    }

    #[test]
    fn directives_are_checked_when_read() {
        assert!(Level::try_from("info,stream=debug".to_string()).is_ok());
        assert!(Level::try_from("stream=loudly".to_string()).is_err());
    }
}
