//! `touchstone-train evaluate`: how good a bundle is on pictures that it never saw.

use std::sync::atomic::AtomicBool;

use anyhow::Result;
use forensics::ForgeryDetector;

use super::asked::{Asked, judged, name_of};
use crate::arguments::{Evaluate, Shared};
use crate::engine;
use crate::files::write_whole;
use crate::measure::report::Judgement;
use crate::measure::samples::Condition;
use crate::show::pictures::{draw, worst};
use crate::show::record::{CARD, Finding, record};
use crate::telling::{print, say};

/// Judges a bundle and says how good it is.
pub(crate) fn evaluate(what: &Evaluate, with: &Shared, stop: &AtomicBool) -> Result<()> {
    let mut model = engine::model(&what.bundle, with)?;
    let asked = Asked::of((&what.bundle, &what.data), what.draws, what.faces.as_deref(), with, stop)?;
    let samples = judged(&asked, &Condition::ALL, &mut model, with, stop)?;
    let judgement = Judgement::of(samples, model.calibration(), model.thresholds());
    let report = &judgement.report;
    print(&format!(
        "{} people, {} pictures\n\n{}\n{}",
        report.identities,
        report.pictures,
        report.table(),
        report.property_table()
    ))?;
    if let Some(path) = &what.json {
        write_whole(path, serde_json::to_string_pretty(report)?.as_bytes())?;
    }
    if let Some(folder) = &what.pictures {
        let drawn = draw(folder, &judgement)?;
        write_whole(&folder.join("worst.svg"), worst(&asked.exam, &judgement)?.to_svg().as_bytes())?;
        let names: Vec<&str> = drawn.into_iter().map(|(file, _)| file).collect();
        say(&format!("{}, worst.svg in {}", names.join(", "), folder.display()));
    }
    if what.card {
        let (on, words) = (&*name_of(&what.data), &*asked.words);
        record(&what.bundle, &Finding { on, words, command: &with.line, judgement: &judgement })?;
        say(&format!("{}: \"Measured on {on}\"", what.bundle.join(CARD).display()));
    }
    Ok(())
}
