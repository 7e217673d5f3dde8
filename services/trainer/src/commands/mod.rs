//! What can be asked for, a file for each command; `train` is the story.

mod asked;
mod calibrate;
mod evaluate;
mod forge;
mod preview;
mod train;

use std::sync::atomic::AtomicBool;

use crate::arguments::{Arguments, Command};

/// Does what the command line says; `stop` set, it saves and returns.
pub fn run(arguments: Arguments, stop: &AtomicBool) -> anyhow::Result<()> {
    match arguments.command {
        Command::Train(what) => train::train(&what, &arguments.shared, stop),
        Command::Evaluate(what) => evaluate::evaluate(&what, &arguments.shared, stop),
        Command::Calibrate(what) => calibrate::calibrate(&what, &arguments.shared, stop),
        Command::Forge(what) => forge::forge(&what, &arguments.shared, stop),
        Command::Preview(what) => preview::preview(&what, &arguments.shared, stop),
    }
}
