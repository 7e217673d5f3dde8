//! `touchstone-train`: see the library.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

#[allow(clippy::print_stderr)]
fn main() -> ExitCode {
    models::prepare_process();
    let arguments = trainer::Arguments::read();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The second signal ends the process at once; the first one lets it keep what it has.
        let twice = flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop));
        if let Err(error) = twice.and_then(|_| flag::register(signal, Arc::clone(&stop))) {
            eprintln!("touchstone-train: signal {signal}: {error}");
            return ExitCode::FAILURE;
        }
    }
    let result = trainer::run(arguments, &stop);
    if let Err(error) = &result {
        eprintln!("touchstone-train: {error:#}");
    }
    match result {
        _ if stop.load(Ordering::Relaxed) => ExitCode::from(130),
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
