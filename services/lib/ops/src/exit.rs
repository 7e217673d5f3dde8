//! Why a process ends: sysexits, so that a supervisor and a person read the same thing.

use std::fmt;
use std::process::ExitCode;

/// Why a process ends. The numbers are those of `sysexits.h` where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitReason {
    /// All work was finished and handed over.
    Drained = 0,
    /// The configuration is wrong (`EX_USAGE`): restarting does not help.
    Config = 64,
    /// A dependency could not be reached at start (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// A bug or a broken device (`EX_SOFTWARE`).
    Bug = 70,
    /// Restart me (`EX_TEMPFAIL`): drain deadline, out of memory, fenced, second signal.
    Temporary = 75,
    /// A model or a permission was refused at start: a person has to look.
    Refused = 78,
}

impl ExitReason {
    /// The process's exit status.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// This reason with the sentence that explains it.
    pub fn because(self, why: impl fmt::Display) -> Exit {
        Exit { reason: self, why: why.to_string() }
    }
}

impl From<ExitReason> for ExitCode {
    fn from(reason: ExitReason) -> Self {
        ExitCode::from(reason.code())
    }
}

/// An end that is not a success: the reason and the sentence for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Exit {
    /// What the supervisor is told.
    pub reason: ExitReason,
    /// What people are told.
    pub why: String,
}

/// Two rooms that register one metric name are a bug of ours.
impl From<prometheus::Error> for Exit {
    fn from(error: prometheus::Error) -> Self {
        ExitReason::Bug.because(format_args!("metrics: {error}"))
    }
}

impl From<crate::config::ConfigError> for Exit {
    fn from(error: crate::config::ConfigError) -> Self {
        ExitReason::Config.because(error)
    }
}

/// For `main`, before telemetry exists: says why on standard error and gives the exit code.
#[allow(clippy::print_stderr)] // before telemetry is up standard error is all there is
pub fn refuse(exit: impl Into<Exit>) -> ExitCode {
    let exit = exit.into();
    eprintln!("{}", exit.why);
    exit.reason.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_a_contract_with_supervisors() {
        let codes: Vec<u8> = [
            ExitReason::Drained,
            ExitReason::Config,
            ExitReason::Unavailable,
            ExitReason::Bug,
            ExitReason::Temporary,
            ExitReason::Refused,
        ]
        .map(ExitReason::code)
        .to_vec();
        assert_eq!(codes, [0, 64, 69, 70, 75, 78]);
    }
}
