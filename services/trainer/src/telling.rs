//! What people are told: how far a long piece of work is, what came out, and whether their wish to stop was heard.

use std::cell::Cell;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Work in steps that can be counted.
pub(crate) struct Progress<'a> {
    bar: ProgressBar,
    title: &'static str,
    stop: &'a AtomicBool,
    then: Cell<Then>,
}

/// What happens when a stop is asked for.
#[derive(Clone, Copy)]
enum Then {
    Ends,
    /// It waits for the end of the work, and this is said.
    Waits(&'static str),
    /// It was said.
    Waited,
}

impl<'a> Progress<'a> {
    /// A line on standard error; nothing where nobody looks.
    pub(crate) fn new(title: &'static str, stop: &'a AtomicBool) -> Self {
        let style = ProgressStyle::with_template("{prefix} {pos}/{len} {wide_bar} {per_sec}, {eta} left");
        let bar = ProgressBar::new(0).with_prefix(title);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, title, stop, then: Cell::new(Then::Ends) }
    }

    /// Of work that a stop has to wait for: whoever asks for one is told `so`.
    pub(crate) fn to_the_end(title: &'static str, stop: &'a AtomicBool, so: &'static str) -> Self {
        let progress = Self::new(title, stop);
        progress.then.set(Then::Waits(so));
        progress
    }

    pub(crate) fn begin(&self, steps: u64) {
        self.bar.set_length(steps);
    }

    /// Counts steps that are done; fails if a stop was asked for that need not wait.
    pub(crate) fn done(&self, steps: u64) -> Result<()> {
        self.bar.inc(steps);
        if !self.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.then.get() {
            Then::Ends => {
                let (position, length) = (self.bar.position(), self.bar.length().unwrap_or_default());
                self.bar.abandon();
                bail!("stopped: {} {position} of {length}", self.title);
            }
            Then::Waits(so) => {
                self.bar.suspend(|| say(so));
                self.then.set(Then::Waited);
                Ok(())
            }
            Then::Waited => Ok(()),
        }
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// What was asked for, on standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("standard output")
}

/// A line on standard error: standard output is for what is asked for.
#[allow(clippy::print_stderr)]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}
