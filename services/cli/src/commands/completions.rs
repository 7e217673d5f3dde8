//! `touchstone completions`.

use crate::arguments::{Completions, command};
use crate::failure::{Failure, Status};
use crate::terminal::Terminal;

pub(crate) fn completions(what: &Completions, terminal: &mut Terminal) -> Result<Status, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(what.shell, &mut command(), "touchstone", &mut script);
    terminal.say(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Status::Ok)
}
