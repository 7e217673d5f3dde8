//! How far a long piece of work is, for people, and whether they asked it to stop.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Work in steps that can be counted.
pub(crate) struct Progress<'a> {
    bar: ProgressBar,
    title: &'static str,
    stop: &'a AtomicBool,
}

impl<'a> Progress<'a> {
    /// A line on standard error; nothing where nobody looks.
    pub(crate) fn new(title: &'static str, stop: &'a AtomicBool) -> Self {
        let style = ProgressStyle::with_template("{prefix} {pos}/{len} {wide_bar} {per_sec}, {eta} left");
        let bar = ProgressBar::new(0).with_prefix(title);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, title, stop }
    }

    /// Of work that a stop has to wait for.
    pub(crate) fn to_the_end(title: &'static str) -> Self {
        static GOING: AtomicBool = AtomicBool::new(false);
        Self::new(title, &GOING)
    }

    pub(crate) fn begin(&self, steps: u64) {
        self.bar.set_length(steps);
    }

    /// Counts steps that are done; fails if a stop was asked for.
    pub(crate) fn done(&self, steps: u64) -> Result<()> {
        self.bar.inc(steps);
        if self.stop.load(Ordering::Relaxed) {
            let (position, length) = (self.bar.position(), self.bar.length().unwrap_or_default());
            self.bar.abandon();
            bail!("stopped: {} {position} of {length}", self.title);
        }
        Ok(())
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
