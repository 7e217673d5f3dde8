//! The command line that every service shares: which file configures it, and whether to only check that.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};
use serde::Serialize;

use crate::config;
use crate::{ExitReason, refuse};

/// What every service takes.
#[derive(Debug, Clone, Default, Args)]
pub struct ServiceArguments {
    /// Configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration, print it with secrets hidden, and exit
    #[arg(long, global = true)]
    pub check_config: bool,
}

/// The arguments of this process, or the exit code after an answer (`--help`) or a mistake.
///
/// # Errors
/// With 0 after an answer, and [`ExitReason::Config`] after a mistake; the words are printed.
pub fn parse<A: Parser>() -> Result<A, ExitCode> {
    A::try_parse().map_err(|usage| {
        // Nobody is left to tell when even this cannot be written.
        let _written = usage.print();
        if usage.use_stderr() { ExitReason::Config.into() } else { ExitCode::SUCCESS }
    })
}

/// Prints a configuration on standard output, secrets hidden.
pub fn show(config: &impl Serialize) -> ExitCode {
    match std::io::stdout().write_all(config::render(config).as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(ExitReason::Unavailable.because(error)),
    }
}
