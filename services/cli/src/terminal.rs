//! Where answers, progress and errors go, and in which form.

use std::io::Write;
use std::time::Duration;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use proto::json::JsonWriter;

use crate::arguments::{Global, Output};
use crate::failure::Failure;
use crate::run::Surroundings;

/// Standard output for answers, standard error for everything else.
pub(crate) struct Terminal {
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
    stdout_is_terminal: bool,
    colour: bool,
    error_colour: bool,
    /// Progress and hints are welcome.
    talkative: bool,
    output: Output,
    json: JsonWriter,
}

impl Terminal {
    pub(crate) fn new(surroundings: Surroundings, global: &Global, environment: &[(String, String)]) -> Self {
        let set = |wanted: &str| environment.iter().any(|(name, value)| name == wanted && !value.is_empty());
        // https://no-color.org: any value but the empty one; a dumb terminal knows no escapes at all.
        let dumb = environment.iter().any(|(name, value)| name == "TERM" && value == "dumb");
        let colourful = !set("NO_COLOR") && !dumb;
        Self {
            stdout: surroundings.stdout,
            stderr: surroundings.stderr,
            stdout_is_terminal: surroundings.stdout_is_terminal,
            colour: colourful && surroundings.stdout_is_terminal,
            error_colour: colourful && surroundings.stderr_is_terminal,
            talkative: surroundings.stderr_is_terminal && !global.quiet && !dumb,
            output: global.output,
            json: JsonWriter::new(),
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Writes messages as JSON.
    pub(crate) fn json(&self) -> &JsonWriter {
        &self.json
    }

    /// A line of the answer.
    pub(crate) fn say(&mut self, line: impl std::fmt::Display) -> Result<(), Failure> {
        writeln!(self.stdout, "{line}")?;
        Ok(self.stdout.flush()?)
    }

    /// A line on standard error for a person who watches; nothing where nobody does.
    pub(crate) fn hint(&mut self, line: impl std::fmt::Display) {
        if self.talkative {
            self.warn(line);
        }
    }

    /// A line on standard error.
    pub(crate) fn warn(&mut self, line: impl std::fmt::Display) {
        // Nobody is left to tell when even standard error is gone.
        let _written = writeln!(self.stderr, "{line}");
    }

    pub(crate) fn complain(&mut self, failure: &Failure) {
        let label = if self.error_colour { "\u{1b}[1;31merror:\u{1b}[0m" } else { "error:" };
        self.warn(format_args!("{label} {failure}"));
    }

    /// A bar on standard error, drawn only for a person.
    pub(crate) fn progress(&self, what: &'static str, total: u64) -> ProgressBar {
        if !self.talkative {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix:>9} [{bar:30}] {pos}/{len} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// An empty table without lines, so that it can be read by people and cut by scripts.
    pub(crate) fn table(&self, header: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.stdout_is_terminal {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.force_no_tty().set_content_arrangement(ContentArrangement::Disabled);
        }
        if self.colour {
            table.enforce_styling();
        }
        if !header.is_empty() {
            table.set_header(header.iter().map(|title| self.bold(title)));
        }
        table
    }

    /// Prints a table without trailing blanks.
    pub(crate) fn show(&mut self, table: &Table) -> Result<(), Failure> {
        for line in table.lines() {
            let line = line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned();
            self.say(line)?;
        }
        Ok(())
    }

    pub(crate) fn bold(&self, text: &str) -> Cell {
        let cell = cell(text);
        if self.colour { cell.add_attribute(Attribute::Bold) } else { cell }
    }

    pub(crate) fn coloured(&self, text: &str, colour: Color) -> Cell {
        let cell = cell(text);
        if self.colour { cell.fg(colour) } else { cell }
    }
}

/// A cell whose text cannot steer the terminal: much of what is shown was written by strangers.
pub(crate) fn cell(text: impl AsRef<str>) -> Cell {
    Cell::new(harmless(text.as_ref()))
}

/// The text with every control character shown as `\u{fffd}`.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\u{9b}c\n"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}");
    }
}
