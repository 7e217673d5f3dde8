//! `touchstone-train evaluate` and `calibrate`: how good a bundle is on pictures it never saw, and what its scores mean.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use forensics::{CropBatch, CropMode, ForgeryDetector};
use models::bundle::{Bundle, Storage, write};
use models::{PrecisionChoice, TwoStream};

use crate::arguments::{Calibrate, Evaluate, Shared};
use crate::calibrate::{Budgets, Targets, platt, temperature, thresholds};
use crate::faces::{Faces, identity_of, photos, write_whole};
use crate::labels;
use crate::pairs::Pairs;
use crate::report::{self, Report};
use crate::samples::{Condition, Judge, Sample, judged, labelled, scores};
use crate::shared;
use crate::split::Split;

/// Of evaluation draws: fixed, so that every bundle is judged on the same forgeries.
const SEED: u64 = 20_261_127;

/// Judges a bundle and says how good it is.
pub(crate) fn evaluate(what: &Evaluate, with: &Shared) -> Result<()> {
    let mut detector = detector(&what.bundle, with)?;
    let samples = samples((&what.bundle, &what.data), what.draws, &Condition::ALL, &mut detector, with)?;
    let report = Report::of(&samples, &detector.calibration(), detector.thresholds());
    shared::print(&format!(
        "{} people, {} pictures\n\n{}\n{}",
        report.identities,
        report.pictures,
        report.table(),
        report.property_table()
    ))?;
    if let Some(path) = &what.json {
        write_whole(path, serde_json::to_string_pretty(&report)?.as_bytes())?;
    }
    if let Some(folder) = &what.pictures {
        let drawn = report::draw(folder, &samples, &report, &detector.calibration(), detector.thresholds())?;
        shared::say(&format!("{} in {}", drawn.join(", "), folder.display()));
    }
    Ok(())
}

/// Fits calibration and thresholds on given pictures and writes the bundle anew.
pub(crate) fn calibrate(what: &Calibrate, with: &Shared) -> Result<()> {
    let mut detector = detector(&what.bundle, with)?;
    let samples = samples(
        (&what.bundle, &what.data),
        what.draws,
        &[Condition::AsDrawn, Condition::Untouched],
        &mut detector,
        with,
    )?;
    // Labelled pictures are judged as they are; forgeries made here, after the losses of an upload.
    let drawn = samples.iter().any(|sample| sample.condition == Condition::AsDrawn);
    let scored = scores(&samples, |sample| !drawn || sample.condition == Condition::AsDrawn);
    let fitted = match what.temperature {
        true => temperature(&scored, Targets::Smoothed)?,
        false => platt(&scored, Targets::Smoothed)?,
    };
    let budgets = Budgets { false_alarms: what.false_alarms, misses: what.misses };
    let found = thresholds(&scored, &fitted, budgets)?;
    let bundle = Bundle::read(&what.bundle)?;
    let mut manifest = bundle.manifest;
    manifest.calibration = fitted;
    manifest.calibrated_on = what.data.display().to_string();
    manifest.thresholds = Some(found);
    let written = write(&what.out, &manifest, &bundle.weights, Storage::F32, None)?;
    shared::print(&format!(
        "{}: sha256 {}; LIKELY_FORGED from {:.4}, LIKELY_AUTHENTIC below {:.4}",
        what.out.display(),
        hex::encode(written.sha256),
        found.forged,
        found.authentic
    ))
}

fn detector(folder: &Path, with: &Shared) -> Result<TwoStream> {
    let config = shared::config(with, PrecisionChoice::Auto)?;
    let detector = TwoStream::load(folder, &config).with_context(|| folder.display().to_string())?;
    let crop = detector.preprocessing().crop;
    ensure!(
        crop == CropMode::Aligned,
        "{}: crops are {}; only aligned ones are made here",
        folder.display(),
        crop.as_str()
    );
    Ok(detector)
}

/// Judged samples of a folder of photos or of a manifest. Identities and photos that the bundle knows are left out.
fn samples(
    (bundle, data): (&Path, &Path),
    draws: u64,
    conditions: &[Condition],
    detector: &mut TwoStream,
    with: &Shared,
) -> Result<Vec<Sample>> {
    let labels = if data.is_file() { Some(labels::read(data)?) } else { None };
    let photos = match &labels {
        Some(labels) => labels.keys().cloned().collect(),
        None => photos(&[data.to_owned()])?,
    };
    let identity = |path: &Path| match labels.as_ref().and_then(|labels| labels.get(path)) {
        Some(label) => label.identity.clone(),
        None => identity_of(path),
    };
    let folder = tempfile::tempdir().context("a temporary folder for faces")?;
    let (faces, harvest) = shared::faces(&photos, &identity, folder.path(), with)?;
    harvest.report().iter().for_each(|line| shared::say(line));
    let members = unknown(bundle, &faces)?;
    ensure!(!members.is_empty(), "no picture is left to judge: {}", harvest.report().join("; "));
    let progress = shared::progress("judged");
    match labels {
        None => judged(&Pairs::new(Arc::new(faces), members, SEED), draws, conditions, detector, &progress),
        Some(labels) => labelled(&faces, &members, &labels, detector, &progress),
    }
}

/// Faces that the bundle was neither trained nor validated with, as far as its `split.json` says.
fn unknown(bundle: &Path, faces: &Faces) -> Result<Vec<usize>> {
    let path = bundle.join("split.json");
    let split: Option<Split> = match std::fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let Some(split) = split else {
        shared::say("the bundle does not say whom it was trained with: nobody is left out");
        return Ok((0..faces.faces.len()).collect());
    };
    let members: Vec<usize> =
        (0..faces.faces.len()).filter(|&face| !split.knows(&faces.faces[face])).collect();
    shared::say(&format!(
        "{} faces are left out: the bundle was trained or validated with them",
        faces.faces.len() - members.len()
    ));
    Ok(members)
}

impl Judge for TwoStream {
    fn score(&mut self, crops: &[Vec<u8>]) -> Result<Vec<f32>> {
        let mut logits = Vec::with_capacity(crops.len());
        for piece in crops.chunks(self.batch_max()) {
            let mut batch = CropBatch::with_capacity(piece.len());
            if !piece.iter().all(|crop| batch.push(crop)) {
                bail!("a crop is not 256 × 256 pixels");
            }
            logits.extend(ForgeryDetector::score(self, &batch)?.iter().map(|logit| logit.get()));
        }
        Ok(logits)
    }
}
