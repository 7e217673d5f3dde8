//! Opens the building: arguments, environment and terminal are read here and nowhere below.

use std::io::IsTerminal;
use std::process::ExitCode;

fn main() -> ExitCode {
    // It starts the program afresh, which only what computes is worth.
    #[cfg(feature = "torch")]
    if std::env::args_os().any(|argument| argument == "model") {
        models::prepare_process();
    }
    let surroundings = cli::Surroundings {
        environment: std::env::vars().collect(),
        stdout: Box::new(std::io::stdout()),
        stderr: Box::new(std::io::stderr()),
        stdout_is_terminal: std::io::stdout().is_terminal(),
        stderr_is_terminal: std::io::stderr().is_terminal(),
    };
    let arguments = std::env::args_os().collect();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(cli::run(arguments, surroundings)).into(),
        Err(error) => ops::refuse(ops::ExitReason::Unavailable.because(error)),
    }
}
