//! `touchstone-train train`: photos in, a calibrated bundle out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use forensics::{Calibration, CropMode, Preprocessing};
use indicatif::{ProgressBar, ProgressStyle};
use models::bundle::{Manifest, Storage, write};
use models::{Architecture, Fusion, TwoStreamWeights};
use tch::Kind;

use crate::arguments::{Preset, Shared, Train};
use crate::calibrate::{Budgets, Targets, platt, thresholds};
use crate::card::{Measured, Statement, card};
use crate::faces::{identity_of, photos, write_whole};
use crate::forge::{self, Manipulation};
use crate::learner::{Learner, Loss, Pace};
use crate::loader::Loader;
use crate::pairs::Pairs;
use crate::report::{self, Report};
use crate::run_folder::{Line, Run, Settings};
use crate::samples::{Condition, Sample, judged, scores};
use crate::scorer::Scorer;
use crate::shared::{self, Engine};
use crate::split::{Side, Split};
use crate::start::{self, Start};
use crate::{metrics, plots};

/// Steps between lines of the log.
const NOTE_EVERY: u64 = 20;
/// Samples of each face and forgery in a validation.
const VALIDATION_DRAWS: u64 = 2;
/// Samples of each face and forgery that calibration and thresholds are fitted on.
const CALIBRATION_DRAWS: u64 = 20;
/// Forgeries need donors, and a batch more than one face.
const FACES_MIN: usize = 8;
/// Share of the steps, and most steps, in which the rate warms up.
const WARM_UP: (f64, u64) = (0.05, 300);

/// Runs until all steps are done, or `stop` is set: then the checkpoint says where to go on.
pub(crate) fn train(what: &Train, with: &Shared, stop: &AtomicBool) -> Result<()> {
    ensure!(
        !what.out.exists(),
        "{} exists already, and a bundle is never written over: move it away, or name another --out",
        what.out.display()
    );
    let folder = what.run.clone().unwrap_or_else(|| beside(&what.out));
    let engine = Engine::open(with, &what.precision)?;
    let mut run = Run::take(&folder, what.resume)?;
    let (faces, harvest) = shared::faces(&photos(&what.real)?, &identity_of, &folder, with)?;
    harvest.report().iter().for_each(|line| shared::say(line));
    harvest.at_least(FACES_MIN)?;
    let mut split = Split::of(&faces.faces);
    if let Some(parent) = what.init.as_deref().filter(|path| path.is_dir()) {
        split.inherit(&faces.faces, &Split::read(parent)?.unwrap_or_default());
    }
    write_whole(&folder.join("split.json"), serde_json::to_string_pretty(&split)?.as_bytes())?;
    let faces = Arc::new(faces);
    let side = |side| Pairs::new(Arc::clone(&faces), split.members(side), what.seed);
    let (learned, validated) = (side(Side::Train), side(Side::Validation));
    shared::say(&format!(
        "{} faces to learn from, {} to validate with, {} kept for the test",
        learned.len(),
        validated.len(),
        split.members(Side::Test).len()
    ));
    ensure!(learned.len() >= 2 && validated.len() >= 2, "too few people for a split: more photos are needed");

    let settings = settings(what, &engine, split.digest());
    let architecture = architecture(what.preset);
    let first = what.init.clone().map_or(Start::Chance, Start::From);
    let first = start::weights(&first, architecture, what.seed as i64)?;
    let mut learner = Learner::new(&first, settings.pace, engine.device, engine.kind)?;
    run.restore(&settings, &mut learner)?;
    let mut session = Session { what, settings, validated, engine, folder: folder.clone() };
    session.learn(&mut learner, &mut run, &learned, stop)?;
    if learner.done() < what.steps {
        shared::say(&format!("stopped after step {}; go on with --resume", learner.done()));
        return Ok(());
    }
    session.finish(&learner.averaged()?, &split)
}

struct Session<'a> {
    what: &'a Train,
    settings: Settings,
    validated: Pairs,
    engine: Engine,
    folder: PathBuf,
}

impl Session<'_> {
    fn learn(
        &mut self,
        learner: &mut Learner,
        run: &mut Run,
        source: &Pairs,
        stop: &AtomicBool,
    ) -> Result<()> {
        let last = self.what.until.unwrap_or(u64::MAX).min(self.what.steps);
        if learner.done() >= last {
            return Ok(());
        }
        let mut loader =
            Loader::start(source, learner.done()..last, self.what.batch, self.engine.forge_threads)?;
        let bar = bar(self.what.steps, learner.done());
        let mut meter = Meter::new(&loader);
        let mut auc = String::from("-");
        while learner.done() < last && !stop.load(Ordering::Relaxed) {
            let batch = loader.next()?;
            let step = learner.learn(&batch.pixels, &batch.labels)?;
            meter.count(step.loss);
            let done = learner.done();
            bar.set_position(done);
            if done.is_multiple_of(NOTE_EVERY) || done == last {
                let line = meter.line(done, step, 2 * self.what.batch, &loader);
                let speed = line.images_per_second.unwrap_or_default();
                bar.set_message(format!(
                    "{speed:.1} images/s, loss {:.3}, AUC {auc}",
                    line.loss.unwrap_or_default()
                ));
                run.note(&line)?;
                meter = Meter::new(&loader);
            }
            if done.is_multiple_of(self.what.validate_every) || done == last {
                let found = self.validate(&learner.averaged()?)?;
                auc = found.values().map(|auc| format!("{auc:.3}")).collect::<Vec<_>>().join("/");
                run.note(&Line { step: done, validation: found, ..Line::default() })?;
                write_whole(&self.folder.join("curves.svg"), curves(&run.lines()?).as_bytes())?;
                meter = Meter::new(&loader);
            }
            if done.is_multiple_of(self.what.save_every) || done == last {
                run.save(learner, &self.settings)?;
            }
        }
        bar.abandon();
        // A stop comes between two checkpoints.
        if learner.done() < last { run.save(learner, &self.settings) } else { Ok(()) }
    }

    /// Calibrates on the validation side and writes the bundle with its card, split and pictures.
    fn finish(&self, weights: &TwoStreamWeights, split: &Split) -> Result<()> {
        let what = self.what;
        let samples = self.judged(weights, CALIBRATION_DRAWS, "calibration")?;
        let scored = scores(&samples, |_| true);
        let fitted = platt(&scored, Targets::Smoothed)
            .and_then(|fitted| Ok((fitted, thresholds(&scored, &fitted, Budgets::default())?)));
        let (calibration, found) = match fitted {
            Ok((calibration, found)) => (calibration, Some(found)),
            // A model that learned too little: it is kept, and abstains.
            Err(error) => {
                shared::say(&format!(
                    "no calibration ({error}): verdicts of this bundle abstain; train for longer"
                ));
                (Calibration::None, None)
            }
        };
        let manifest = Manifest {
            name: what.name.clone(),
            version: what.bundle_version.clone(),
            architecture: architecture(what.preset),
            fusion: Fusion::Official,
            preprocessing: Preprocessing {
                crop: CropMode::Aligned,
                face_detector: "mtcnn-facenet-2.6.0".to_owned(),
            },
            calibration,
            calibrated_on: format!(
                "{} people of the validation side, {CALIBRATION_DRAWS} draws each",
                self.validated.len()
            ),
            thresholds: found,
            licence: what.licence.clone(),
            training: self.story(split),
        };
        let storage = if what.f32 { Storage::F32 } else { Storage::F16 };
        // Renamed when it is whole: a bundle without its split would be tested on whom it learned from.
        let mut beside = what.out.clone().into_os_string();
        beside.push(".new");
        let new = PathBuf::from(beside);
        if new.exists() {
            std::fs::remove_dir_all(&new).with_context(|| new.display().to_string())?;
        }
        let bundle = write(&new, &manifest, weights, storage, None)?;
        let report = Report::of(&samples, &calibration, found);
        let (data, rule) = (&*what.data_statement, &*split.rule);
        let words = std::env::args().skip(1).filter(|word| word != "--resume");
        let quoted = |word: String| if word.contains(' ') { format!("'{word}'") } else { word };
        let command = words.map(quoted).collect::<Vec<_>>().join(" ");
        let statement = Statement { data, split: rule, command: &format!("touchstone-train {command}") };
        let measured =
            Measured { report: &report, on: "the validation side, which the calibration was fitted on" };
        write_whole(&new.join("MODEL_CARD.md"), card(&manifest, &statement, &[measured]).as_bytes())?;
        split.write(&new)?;
        std::fs::rename(&new, &what.out).with_context(|| what.out.display().to_string())?;
        let pictures = self.folder.join("pictures");
        report::draw(&pictures, &samples, &report, &calibration, found)?;
        shared::say(&format!(
            "{}: sha256 {}; pictures in {}; `touchstone-train evaluate` measures it on people it never saw",
            what.out.display(),
            hex::encode(bundle.sha256),
            pictures.display()
        ));
        Ok(())
    }

    /// How the weights came to be, for the manifest.
    fn story(&self, split: &Split) -> String {
        let Settings { start, precision, pairs, pace, .. } = &self.settings;
        let faces = split.members(Side::Train).len();
        let loss = match pace.loss {
            Loss::CrossEntropy => "cross-entropy",
            Loss::AmSoftmax => "AM-softmax",
        };
        format!(
            "{} steps of {pairs} faces and their forgeries, {faces} faces, from {start}; {loss}, AdamW {} with decay {}, {precision}, \
             seed {}",
            pace.steps, pace.rate, pace.decay, pace.seed
        )
    }

    /// AUC by manipulation on the validation side.
    fn validate(&self, weights: &TwoStreamWeights) -> Result<BTreeMap<String, f64>> {
        let samples = self.judged(weights, VALIDATION_DRAWS, "validation")?;
        let auc = |manipulation: Manipulation| {
            let of = scores(&samples, |sample| sample.measures(manipulation.as_str()));
            metrics::auc(&of).map(|auc| (manipulation.to_string(), auc))
        };
        Ok(Manipulation::ALL.into_iter().filter_map(auc).collect())
    }

    fn judged(&self, weights: &TwoStreamWeights, draws: u64, title: &'static str) -> Result<Vec<Sample>> {
        let mut scorer = Scorer::new(weights, self.engine.device)?;
        let progress = shared::progress(title);
        judged(&self.validated, draws, &[Condition::AsDrawn], &mut scorer, &progress)
    }
}

/// The run's folder where none is named.
fn beside(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".run");
    name.into()
}

pub(crate) fn architecture(preset: Preset) -> Architecture {
    match preset {
        Preset::Mini => Architecture::MINI,
        Preset::Full => Architecture::FULL,
    }
}

fn settings(what: &Train, engine: &Engine, data: String) -> Settings {
    let (share, most) = WARM_UP;
    let warm_up = ((what.steps as f64 * share) as u64).min(most);
    Settings {
        preset: architecture(what.preset).to_string(),
        start: what
            .init
            .as_deref()
            .map_or_else(|| "chance".to_owned(), |path: &Path| path.display().to_string()),
        precision: if engine.kind == Kind::Float { "f32" } else { "bf16" }.to_owned(),
        pairs: what.batch,
        forge: forge::VERSION,
        pace: Pace {
            steps: what.steps,
            warm_up,
            rate: what.rate,
            decay: what.decay,
            loss: what.loss,
            seed: what.seed,
        },
        data,
    }
}

/// Means over the steps since the last line.
struct Meter {
    started: Instant,
    waited: Duration,
    losses: f64,
    steps: u64,
}

impl Meter {
    fn new(loader: &Loader) -> Self {
        Self { started: Instant::now(), waited: loader.waited(), losses: 0.0, steps: 0 }
    }

    fn count(&mut self, loss: f64) {
        self.losses += loss;
        self.steps += 1;
    }

    fn line(&self, done: u64, step: crate::learner::Step, images: usize, loader: &Loader) -> Line {
        let seconds = self.started.elapsed().as_secs_f64();
        Line {
            step: done,
            loss: Some(self.losses / self.steps as f64),
            gradient: Some(step.gradient),
            rate: Some(step.rate),
            images_per_second: Some((self.steps as usize * images) as f64 / seconds),
            waiting: Some((loader.waited() - self.waited).as_secs_f64() / seconds),
            validation: BTreeMap::new(),
        }
    }
}

fn bar(steps: u64, done: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("step {pos}/{len} {wide_bar} {msg}, {eta} left");
    let bar = ProgressBar::new(steps).with_position(done);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.reset_eta();
    bar
}

fn curves(lines: &[Line]) -> String {
    let loss: Vec<(u64, f64)> = lines.iter().filter_map(|line| Some((line.step, line.loss?))).collect();
    let auc = |manipulation: Manipulation| -> Vec<(u64, f64)> {
        let found =
            lines.iter().filter_map(|line| Some((line.step, *line.validation.get(manipulation.as_str())?)));
        found.collect()
    };
    let points = Manipulation::ALL.map(|manipulation| (manipulation.as_str(), auc(manipulation)));
    let named: Vec<_> = points.iter().map(|(name, points)| plots::Curve { name, points }).collect();
    plots::training("Training", &loss, &named)
}
