//! `touchstone-train evaluate` and `calibrate`: how good a bundle is on pictures it never saw, and what its scores mean.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use forensics::{CropMode, DeviceClass, ForgeryDetector};
use models::bundle::{Bundle, Storage, write};
use models::{PrecisionChoice, TwoStream, TwoStreamWeights};
use tch::Kind;

use crate::arguments::{Calibrate, Evaluate, Shared};
use crate::data::faces::{Face, Faces};
use crate::data::labels;
use crate::data::photos::photos;
use crate::data::split::Split;
use crate::files::{fill_whole, must_be_new, write_whole};
use crate::forge::pairs::Pairs;
use crate::measure::calibrate::{Budgets, Targets, platt, temperature, thresholds};
use crate::measure::exam::Exam;
use crate::measure::report::Judgement;
use crate::measure::samples::{Condition, Sample, scores};
use crate::progress::Progress;
use crate::shared;
use crate::show::card::{Statement, card};
use crate::show::pictures::{draw, worst};
use crate::show::record::{CARD, Finding, record};

/// Of evaluation draws: fixed, so that every bundle is judged on the same forgeries.
const SEED: u64 = 20_261_127;

/// Judges a bundle and says how good it is.
pub(crate) fn evaluate(what: &Evaluate, with: &Shared, stop: &AtomicBool) -> Result<()> {
    let mut model = model(&what.bundle, with)?;
    let asked = Asked::of((&what.bundle, &what.data), what.draws, what.faces.as_deref(), with, stop)?;
    let samples = judged(&asked, &Condition::ALL, &mut model, with, stop)?;
    let judgement = Judgement::of(samples, model.calibration(), model.thresholds());
    let report = &judgement.report;
    shared::print(&format!(
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
        shared::say(&format!("{}, worst.svg in {}", names.join(", "), folder.display()));
    }
    if what.card {
        let (on, words) = (&*name_of(&what.data), &*asked.words);
        record(&what.bundle, &Finding { on, words, command: &with.line, judgement: &judgement })?;
        shared::say(&format!("{}: \"Measured on {on}\"", what.bundle.join(CARD).display()));
    }
    Ok(())
}

/// Fits calibration and thresholds on given pictures and writes the bundle anew.
pub(crate) fn calibrate(what: &Calibrate, with: &Shared, stop: &AtomicBool) -> Result<()> {
    must_be_new(&what.out)?;
    let mut model = model(&what.bundle, with)?;
    // Labelled pictures are judged as they are; forgeries made here, after the losses of an upload.
    let condition = if what.data.is_file() { Condition::Untouched } else { Condition::AsDrawn };
    let asked = Asked::of((&what.bundle, &what.data), what.draws, what.faces.as_deref(), with, stop)?;
    let samples = judged(&asked, &[condition], &mut model, with, stop)?;
    let scored = scores(&samples);
    let fitted = match what.temperature {
        true => temperature(&scored, Targets::Smoothed)?,
        false => platt(&scored, Targets::Smoothed)?,
    };
    let budgets = Budgets { false_alarms: what.false_alarms, misses: what.misses };
    let found = thresholds(&scored, &fitted, budgets)?;
    let judgement = Judgement::of(samples, fitted, Some(found));
    let sha256 = fill_whole(&what.out, |new| write_calibrated(new, what, with, (&asked, &judgement)))?;
    shared::print(&format!(
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
    let mut split = asked.split.clone().unwrap_or_default();
    split.calibrated_with(&asked.faces.iter().collect::<Vec<_>>());
    split.write(new)?;
    let data = "as of the bundle that was calibrated";
    let statement = Statement { data, split: &split.rule, command: &with.line, training: None };
    write_whole(&new.join(CARD), card(&manifest, &statement).as_bytes())?;
    let (on, words) = (&*manifest.calibrated_on, "what the calibration was fitted on");
    record(new, &Finding { on, words, command: &with.line, judgement })?;
    Ok(written.sha256)
}

/// The bundle as it is served, checked.
pub(crate) fn model(folder: &Path, with: &Shared) -> Result<TwoStream> {
    let config = shared::config(with, PrecisionChoice::Auto)?;
    let model = TwoStream::load(folder, &config).with_context(|| folder.display().to_string())?;
    let crop = model.preprocessing().crop;
    ensure!(
        crop == CropMode::Aligned,
        "{}: crops are {}; only aligned ones are made here",
        folder.display(),
        crop.as_str()
    );
    Ok(model)
}

fn judged(
    asked: &Asked,
    conditions: &[Condition],
    model: &mut TwoStream,
    with: &Shared,
    stop: &AtomicBool,
) -> Result<Vec<Sample>> {
    let threads = shared::forge_threads(with, model.identity().device == DeviceClass::Cpu);
    asked.exam.judged(conditions, &mut |crops| model.score(crops), threads, &Progress::new("judged", stop))
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

/// The last part of a path, wherever it lies: what a card may say of it.
fn name_of(data: &Path) -> String {
    let whole = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    whole.file_name().unwrap_or(whole.as_os_str()).to_string_lossy().into_owned()
}

/// What a bundle is asked, and about whom.
struct Asked {
    exam: Exam,
    faces: Vec<Face>,
    /// Whom the bundle knows.
    split: Option<Split>,
    /// The same for people.
    words: String,
}

impl Asked {
    /// A folder of photos, of which forgeries are made, or a manifest. Identities and photos that the bundle knows are left
    /// out.
    fn of(
        (bundle, data): (&Path, &Path),
        draws: u64,
        folder: Option<&Path>,
        with: &Shared,
        stop: &AtomicBool,
    ) -> Result<Self> {
        let labels = if data.is_file() { Some(labels::read(data, with.identity)?) } else { None };
        let photos = match &labels {
            Some(labels) => labels::photos(labels),
            None => photos(&[data.to_owned()], with.identity)?,
        };
        let (faces, harvest) = shared::faces(&photos, folder, with, stop)?;
        let split = Split::read(bundle)?;
        let (members, words) = unknown(split.as_ref(), &faces);
        shared::say(&words);
        ensure!(!members.is_empty(), "no picture is left to judge: {}", harvest.report().join("; "));
        let left = members.iter().map(|&member| faces.faces[member].clone()).collect();
        let faces = Arc::new(faces);
        let exam = match labels {
            None => Exam::forged(Pairs::new(faces, members, SEED), draws),
            Some(labels) => Exam::labelled(faces, members, Arc::new(labels)),
        };
        Ok(Self { exam, faces: left, split, words })
    }
}

/// Faces that the bundle was neither trained nor validated nor calibrated with, as far as it says, and how far that is.
fn unknown(split: Option<&Split>, faces: &Faces) -> (Vec<usize>, String) {
    let all = 0..faces.faces.len();
    let Some(split) = split else {
        let words = "the bundle does not say whom it was trained with, so nobody is left out";
        return (all.collect(), words.to_owned());
    };
    let known = split.known();
    let members: Vec<usize> = all.filter(|&face| !known.has(&faces.faces[face])).collect();
    let left_out = faces.faces.len() - members.len();
    let words = format!(
        "{left_out} faces are left out, since the bundle was trained, validated or calibrated with them or their people"
    );
    (members, words)
}
