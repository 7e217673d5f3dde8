//! `touchstone-train evaluate` and `calibrate`: how good a bundle is on pictures it never saw, and what its scores mean.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use forensics::{CropBatch, CropMode, ForgeryDetector};
use models::bundle::{Bundle, Storage, write};
use models::{PrecisionChoice, TwoStream, TwoStreamWeights};
use tch::Kind;

use crate::arguments::{Calibrate, Evaluate, Shared};
use crate::calibrate::{Budgets, Targets, platt, temperature, thresholds};
use crate::card::{Measured, Statement, card};
use crate::faces::{Face, Faces, identity_of, photos, write_whole};
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
    let judged = samples((&what.bundle, &what.data), what.draws, &Condition::ALL, &mut detector, with)?;
    let samples = judged.samples;
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
    // Labelled pictures are judged as they are; forgeries made here, after the losses of an upload.
    let condition = if what.data.is_file() { Condition::Untouched } else { Condition::AsDrawn };
    let judged = samples((&what.bundle, &what.data), what.draws, &[condition], &mut detector, with)?;
    let scored = scores(&judged.samples, |_| true);
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
    let written = write(&what.out, &manifest, &bundle.weights, storage_of(&bundle.weights)?, None)?;
    let mut split = judged.split.unwrap_or_default();
    split.calibrated_with(&judged.faces.iter().collect::<Vec<_>>());
    split.write(&what.out)?;
    let report = Report::of(&judged.samples, &fitted, Some(found));
    let statement = Statement {
        data: "as of the bundle that was calibrated",
        split: &split.rule,
        command: &format!("touchstone-train calibrate {} {}", what.bundle.display(), what.data.display()),
    };
    let measured = Measured { report: &report, on: "what the calibration was fitted on" };
    write_whole(&what.out.join("MODEL_CARD.md"), card(&manifest, &statement, &[measured]).as_bytes())?;
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

/// Halved if the weights lose nothing by it: they were before.
fn storage_of(weights: &TwoStreamWeights) -> Result<Storage> {
    for tensor in weights.tensors().values().filter(|tensor| tensor.dim() >= 2) {
        if !tensor.f_to_kind(Kind::Half)?.f_to_kind(Kind::Float)?.f_equal(tensor)? {
            return Ok(Storage::F32);
        }
    }
    Ok(Storage::F16)
}

/// Samples and whose they are.
struct Judged {
    samples: Vec<Sample>,
    faces: Vec<Face>,
    /// Whom the bundle knows.
    split: Option<Split>,
}

/// Judged samples of a folder of photos or of a manifest. Identities and photos that the bundle knows are left out.
fn samples(
    (bundle, data): (&Path, &Path),
    draws: u64,
    conditions: &[Condition],
    detector: &mut TwoStream,
    with: &Shared,
) -> Result<Judged> {
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
    let split = Split::read(bundle)?;
    let members = unknown(split.as_ref(), &faces);
    ensure!(!members.is_empty(), "no picture is left to judge: {}", harvest.report().join("; "));
    let judged_faces = members.iter().map(|&member| faces.faces[member].clone()).collect();
    let progress = shared::progress("judged");
    let samples = match labels {
        None => judged(&Pairs::new(Arc::new(faces), members, SEED), draws, conditions, detector, &progress),
        Some(labels) => labelled((&faces, &members), &labels, conditions, detector, &progress),
    };
    Ok(Judged { samples: samples?, faces: judged_faces, split })
}

/// Faces that the bundle was neither trained nor validated nor calibrated with, as far as it says.
fn unknown(split: Option<&Split>, faces: &Faces) -> Vec<usize> {
    let Some(split) = split else {
        shared::say("the bundle does not say whom it was trained with: nobody is left out");
        return (0..faces.faces.len()).collect();
    };
    let members: Vec<usize> =
        (0..faces.faces.len()).filter(|&face| !split.knows(&faces.faces[face])).collect();
    let known = faces.faces.len() - members.len();
    shared::say(&format!(
        "{known} faces are left out: the bundle was trained, validated or calibrated with them"
    ));
    members
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
