//! `touchstone-train calibrate`: what a bundle's scores mean, fitted anew.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use models::TwoStreamWeights;
use models::bundle::{Bundle, Storage, write};
use tch::Kind;

use super::asked::{Asked, judged, name_of};
use crate::arguments::{Calibrate, Shared};
use crate::data::split::Split;
use crate::engine;
use crate::files::{fill_whole, must_be_new, write_whole};
use crate::measure::calibrate::{Budgets, Targets, platt, temperature, thresholds};
use crate::measure::report::Judgement;
use crate::measure::samples::{Condition, scores};
use crate::show::card::recalibrated;
use crate::show::record::{CARD, Finding, PICTURES, TRAINING, record};
use crate::telling::print;

/// Fits calibration and thresholds on given pictures and writes the bundle anew.
pub(crate) fn calibrate(what: &Calibrate, with: &Shared, stop: &AtomicBool) -> Result<()> {
    must_be_new(&what.out)?;
    let mut model = engine::model(&what.bundle, with)?;
    let asked = Asked::of((&what.bundle, &what.data), what.draws, what.faces.as_deref(), with, stop)?;
    // Labelled pictures are judged as they are; forgeries made here, after the losses of an upload.
    let condition = if asked.labelled { Condition::Untouched } else { Condition::AsDrawn };
    let samples = judged(&asked, &[condition], &mut model, with, stop)?;
    let scored = scores(&samples);
    let fitted = match what.temperature {
        true => temperature(&scored, Targets::Smoothed),
        false => platt(&scored, Targets::Smoothed),
    };
    let fitted = fitted.with_context(|| {
        format!("{} on {}: nothing is written", what.bundle.display(), what.data.display())
    })?;
    let budgets = Budgets { false_alarms: what.false_alarms, misses: what.misses };
    let found = thresholds(&scored, &fitted, budgets)?;
    let judgement = Judgement::of(samples, fitted, Some(found));
    let sha256 = fill_whole(&what.out, |new| write_calibrated(new, what, with, (&asked, &judgement)))?;
    print(&format!(
        "{}: sha256 {}; LIKELY_FORGED from {:.4}, LIKELY_AUTHENTIC below {:.4}",
        what.out.display(),
        hex::encode(sha256),
        found.forged,
        found.authentic
    ))
}

/// The bundle with the calibration of `judgement`, into `new`; its digest.
fn write_calibrated(
    new: &Path,
    what: &Calibrate,
    with: &Shared,
    (asked, judgement): (&Asked, &Judgement),
) -> Result<[u8; 32]> {
    let Bundle { mut manifest, weights, .. } = Bundle::read(&what.bundle)?;
    manifest.calibration = judgement.calibration;
    manifest.calibrated_on = name_of(&what.data);
    manifest.thresholds = judgement.thresholds;
    // It was measured with another calibration.
    manifest.measured.clear();
    let written = write(new, &manifest, &weights, storage_of(&weights)?, None)?;
    let by_now = Split { naming: with.naming(None), ..Split::default() };
    let mut split = asked.split.clone().unwrap_or(by_now);
    split.calibrated_with(&asked.faces.iter().collect::<Vec<_>>());
    split.write(new)?;
    let [old, training] = [CARD, TRAINING].map(|name| what.bundle.join(name));
    if training.exists() {
        std::fs::create_dir_all(new.join(PICTURES))?;
        std::fs::copy(&training, new.join(TRAINING)).with_context(|| training.display().to_string())?;
    }
    if old.exists() {
        let old = std::fs::read_to_string(&old).with_context(|| old.display().to_string())?;
        write_whole(&new.join(CARD), recalibrated(&old, &manifest, &with.line).as_bytes())?;
    }
    let (on, words) = (&*manifest.calibrated_on, "what the calibration was fitted on");
    record(new, &Finding { on, words, command: &with.line, judgement })?;
    Ok(written.sha256)
}

/// Halved if the weights lose nothing by it: they were before.
fn storage_of(weights: &TwoStreamWeights) -> Result<Storage> {
    for tensor in weights.tensors().values().filter(|tensor| tensor.dim() >= 2) {
        if !tensor.f_to_kind(Kind::Half)?.f_to_kind(Kind::Float)?.f_equal(tensor)? {
            return Ok(Storage::F32);
        }
    }
    Ok(Storage::F16)
}
