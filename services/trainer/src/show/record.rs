//! Puts what was measured into a bundle: its pictures, its manifest, its card.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use models::bundle::{Interval, Manifest, Measured, amend};

use crate::files::write_whole;
use crate::measure::metrics::Estimate;
use crate::measure::report::{Alarms, Judgement, Report};
use crate::show::card::{Section, with_section};
use crate::show::pictures::draw;

/// What was measured, and on what.
pub(crate) struct Finding<'a> {
    /// A bundle holds one finding on each.
    pub(crate) on: &'a str,
    /// What is to be known of those pictures.
    pub(crate) words: &'a str,
    /// The command that measured.
    pub(crate) command: &'a str,
    pub(crate) judgement: &'a Judgement,
}

pub(crate) const CARD: &str = "MODEL_CARD.md";
/// Of a bundle: the card shows them.
pub(crate) const PICTURES: &str = "pictures";
/// How the training went.
pub(crate) const TRAINING: &str = "pictures/training.svg";

/// Each file is written whole, the card last: it speaks of the others.
pub(crate) fn record(bundle: &Path, finding: &Finding<'_>) -> Result<()> {
    let Finding { on, words, command, judgement } = finding;
    let folder = format!("{PICTURES}/{}", plain(on));
    let drawn = draw(&bundle.join(&folder), judgement)?;
    let report = &judgement.report;
    let manifest = amend(bundle, |manifest| {
        manifest.measured.retain(|measured| measured.on != *on);
        manifest.measured.push(measured(on, command, report));
    })?;
    let pictures: Vec<(String, &str)> =
        drawn.into_iter().map(|(file, shows)| (format!("{folder}/{file}"), shows)).collect();
    let path = bundle.join(CARD);
    let card = match std::fs::read_to_string(&path) {
        Ok(card) => card,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => empty(&manifest),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let section = Section { on, words, command, report, pictures: &pictures };
    write_whole(&path, with_section(&card, &section).as_bytes())
}

/// Of a bundle that came without a card.
fn empty(manifest: &Manifest) -> String {
    format!(
        "# {} {}\n\nLicence: {}. {}\n",
        manifest.name, manifest.version, manifest.licence, manifest.training
    )
}

/// As the name of a folder.
fn plain(on: &str) -> String {
    let letter =
        |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    on.chars().map(letter).collect()
}

fn measured(on: &str, command: &str, report: &Report) -> Measured {
    let mut auc: BTreeMap<String, BTreeMap<String, Interval>> = BTreeMap::new();
    for row in &report.rows {
        if let Some(found) = row.auc {
            let by_kind = auc.entry(row.condition.as_str().to_owned()).or_default();
            by_kind.insert(row.kind.clone(), interval(found));
        }
    }
    let by_condition = |number: &dyn Fn(&Alarms) -> Option<Estimate>| {
        let named = |of: &Alarms| Some((of.condition.as_str().to_owned(), interval(number(of)?)));
        report.alarms.iter().filter_map(named).collect()
    };
    Measured {
        on: on.to_owned(),
        command: command.to_owned(),
        people: report.identities,
        pictures: report.pictures,
        auc,
        false_alarms: by_condition(&|alarms| alarms.false_alarms),
        calibration_error: by_condition(&|alarms| alarms.calibration_error),
    }
}

/// In four digits: more would be noise.
fn interval(Estimate { value, low, high }: Estimate) -> Interval {
    [value, low, high].map(|number| (number * 1e4).round() / 1e4)
}
