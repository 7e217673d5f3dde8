//! From arguments to exit code.

use std::ffi::OsString;
use std::io::Write;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::commands;
use crate::failure::{Failure, Status};
use crate::settings::Settings;
use crate::terminal::Terminal;

/// What the process stands in; tests hand in their own.
pub struct Surroundings {
    /// The environment's variables.
    pub environment: Vec<(String, String)>,
    /// Where answers go.
    pub stdout: Box<dyn Write + Send>,
    /// Where progress, hints and errors go.
    pub stderr: Box<dyn Write + Send>,
    /// Whether a person reads standard output.
    pub stdout_is_terminal: bool,
    /// Whether a person reads standard error.
    pub stderr_is_terminal: bool,
}

/// Carries out one command line, the program's name first.
pub async fn run(arguments: Vec<OsString>, mut surroundings: Surroundings) -> Status {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(usage) => return explain(&usage, &mut surroundings),
    };
    let environment = std::mem::take(&mut surroundings.environment);
    let mut terminal = Terminal::new(surroundings, &arguments.global, &environment);
    match Box::pin(carry_out(arguments, environment, &mut terminal)).await {
        Ok(status) => status,
        Err(failure) if failure.is_closed_pipe() => Status::Ok,
        Err(failure) => {
            terminal.complain(&failure);
            failure.status
        }
    }
}

async fn carry_out(
    arguments: Arguments,
    environment: Vec<(String, String)>,
    terminal: &mut Terminal,
) -> Result<Status, Failure> {
    let Arguments { global, command } = arguments;
    let settings = || Settings::load(&global, environment);
    match command {
        Command::Submit(what) => crate::submit::submit(what, settings()?, terminal).await,
        Command::Get(what) => commands::get(what, settings()?, terminal).await,
        Command::List(what) => commands::list(what, settings()?, terminal).await,
        Command::Watch(what) => commands::watch(what, settings()?, terminal).await,
        Command::Verify(what) => commands::verify(what, settings()?, terminal).await,
        #[cfg(feature = "torch")]
        Command::Model(what) => commands::model(what, terminal),
        Command::Config(what) => commands::config(&what, settings()?, terminal),
        Command::Completions(what) => commands::completions(&what, terminal),
    }
}

/// Help and version are answers; anything else is a usage error, which clap itself would end with 2.
fn explain(usage: &clap::Error, surroundings: &mut Surroundings) -> Status {
    let is_answer = !usage.use_stderr();
    let (to, is_terminal) = match is_answer {
        true => (&mut surroundings.stdout, surroundings.stdout_is_terminal),
        false => (&mut surroundings.stderr, surroundings.stderr_is_terminal),
    };
    let plain = surroundings.environment.iter().any(|(name, value)| name == "NO_COLOR" && !value.is_empty());
    let text = usage.render();
    // Nobody is left to tell when even this cannot be written.
    let _written = if is_terminal && !plain { write!(to, "{}", text.ansi()) } else { write!(to, "{text}") };
    if is_answer { Status::Ok } else { Status::Usage }
}
