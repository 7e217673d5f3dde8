//! `touchstone-train train`: photos in, a calibrated bundle out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use forensics::{Calibration, CropMode, ForgeryDetector, Preprocessing, Thresholds};
use indicatif::{ProgressBar, ProgressStyle};
use models::bundle::{Manifest, Storage, amend, write};
use models::two_stream::PlacedNetwork;
use models::{Architecture, Bundle, Fusion, TwoStreamWeights};
use tch::Kind;

use crate::arguments::{Preset, Shared, Train};
use crate::data::labels::AUTHENTIC;
use crate::data::split::Side;
use crate::engine::{self, Engine};
use crate::files::{fill_whole, must_be_new, with_ending, write_whole};
use crate::forge::pairs::Pairs;
use crate::forge::{self, Manipulation};
use crate::learn::learner::{Learner, Loss, Pace, Step};
use crate::learn::loader::Loader;
use crate::learn::run_folder::{Line, Run, Settings};
use crate::learn::start;
use crate::learn::training_set::TrainingSet;
use crate::measure::calibrate::{Budgets, CalibrationError, Targets, platt, thresholds};
use crate::measure::exam::Exam;
use crate::measure::metrics::Ranking;
use crate::measure::report::Judgement;
use crate::measure::samples::{Condition, Sample, scores};
use crate::show::card::{Statement, card};
use crate::show::plots;
use crate::show::record::{CARD, Finding, PICTURES, TRAINING, record};
use crate::telling::{Progress, say};

/// Steps between lines of the log.
const NOTE_EVERY: u64 = 20;
/// What a stop is told meanwhile.
const AFTER_VALIDATION: &str =
    "stopping after this validation; all steps are saved, and another Ctrl-C ends it at once";
/// Samples of each face and forgery in a validation.
const VALIDATION_DRAWS: u64 = 2;
/// Faces in a validation at most: three minutes of `mini` on two cores, at 10 images/s. Chosen.
const VALIDATION_FACES_MAX: usize = 150;
/// Samples of each face and forgery that calibration and thresholds are fitted on.
const CALIBRATION_DRAWS: u64 = 20;
/// The same of all faces together at most, since many people need fewer draws of each: twenty minutes of `mini` on two
/// cores. Chosen; up to 100 faces it changes nothing.
const CALIBRATION_SAMPLES_MAX: u64 = 2000;
/// Share of the steps, and most steps, in which the rate warms up.
const WARM_UP: (f64, u64) = (0.05, 300);

/// Runs until all steps are done, or `stop` is set: then the checkpoint says where to go on.
pub(crate) fn train(what: &Train, with: &Shared, stop: &AtomicBool) -> Result<()> {
    must_be_new(&what.out)?;
    let folder = what.run.clone().unwrap_or_else(|| with_ending(&what.out, ".run"));
    let engine = Engine::open(with, &what.precision)?;
    let mut run = Run::take(&folder, what.resume)?;
    let first = start::first(what.init.as_deref(), architecture(what.preset), what.seed as i64)?;
    let material = TrainingSet::gather(what, &folder, with, stop)?;
    let settings = settings(what, first.told, &engine, &material);
    let mut learner = Learner::new(&first.weights, settings.pace, engine.device, engine.kind)?;
    run.restore(&settings, &mut learner)?;
    let session = Session { what, with, settings, material, engine, folder, stop };
    session.learn(&mut learner, &mut run)?;
    if learner.done() < what.steps {
        say(&format!("stopped after step {}; go on with --resume", learner.done()));
        return Ok(());
    }
    session.finish(&learner.averaged()?, &run)
}

struct Session<'a> {
    what: &'a Train,
    with: &'a Shared,
    settings: Settings,
    material: TrainingSet,
    engine: Engine,
    folder: PathBuf,
    stop: &'a AtomicBool,
}

impl Session<'_> {
    fn learn(&self, learner: &mut Learner, run: &mut Run) -> Result<()> {
        let last = self.what.until.unwrap_or(u64::MAX).min(self.what.steps);
        let validates = |done: u64| done.is_multiple_of(self.what.validate_every) || done == last;
        let looked = |line: &Line| line.step == learner.done() && !line.validation.is_empty();
        if learner.done() > 0 && validates(learner.done()) && !run.lines()?.iter().any(looked) {
            // It was cut off in the middle of it.
            self.look(learner, run)?;
        }
        if learner.done() >= last {
            return Ok(());
        }
        let (source, steps) = (self.material.learned(self.what.seed), learner.done()..last);
        let mut loader = Loader::start(&source, steps, self.what.batch, self.engine.forge_threads)?;
        let bar = bar(self.what.steps, learner.done());
        let mut meter = Meter::new(&loader);
        let mut auc = String::from("-");
        while learner.done() < last && !self.stop.load(Ordering::Relaxed) {
            let batch = loader.next()?;
            let step = learner.learn(&batch)?;
            meter.count(&step);
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
            // Before the validation, which takes minutes: whoever cannot wait loses no step.
            if validates(done) || done.is_multiple_of(self.what.save_every) {
                run.save(learner, &self.settings)?;
            }
            if validates(done) {
                auc = self.look(learner, run)?;
                meter = Meter::new(&loader);
            }
        }
        bar.abandon();
        // A stop comes between two checkpoints.
        if learner.done() < last { run.save(learner, &self.settings) } else { Ok(()) }
    }

    /// Validates, notes what came out, and says it.
    fn look(&self, learner: &Learner, run: &mut Run) -> Result<String> {
        let found = self.validate(&learner.averaged()?)?;
        let words: Vec<String> = found.iter().map(|(kind, auc)| format!("{kind} {auc:.3}")).collect();
        run.note(&Line { step: learner.done(), validation: found, ..Line::default() })?;
        write_whole(&self.folder.join("curves.svg"), curves(&run.lines()?).as_bytes())?;
        Ok(words.join(", "))
    }

    /// Writes the bundle, calibrated and measured as it is served, with its card, split and pictures.
    fn finish(&self, weights: &TwoStreamWeights, run: &Run) -> Result<()> {
        let (what, split) = (self.what, &self.material.split);
        let storage = if what.f32 { Storage::F32 } else { Storage::F16 };
        let sha256 = fill_whole(&what.out, |new| {
            write(new, &self.manifest(), weights, storage, None)?;
            let judgement = self.calibrated(new)?;
            let people = judgement.report.identities;
            let manifest = amend(new, |manifest| {
                manifest.calibration = judgement.calibration;
                manifest.thresholds = judgement.thresholds;
                manifest.calibrated_on = format!(
                    "{people} people of the validation side, {} draws each",
                    self.calibration_draws()
                );
            })?;
            split.write(new)?;
            std::fs::create_dir_all(new.join(PICTURES))?;
            write_whole(&new.join(TRAINING), curves(&run.lines()?).as_bytes())?;
            let (data, command) = (&*what.data_statement, &*self.with.line);
            let statement = Statement {
                data,
                split: &format!("{} ({})", split.rule, self.material.counts()),
                command,
                training: TRAINING,
                speed: &speed(&run.lines()?),
                given: self.material.given(Side::Train).len(),
                begun: what.init.is_some(),
            };
            write_whole(&new.join(CARD), card(&manifest, &statement).as_bytes())?;
            let (on, words) = ("the validation side", "the calibration was fitted on them");
            record(new, &Finding { on, words, command, judgement: &judgement })?;
            Ok(Bundle::read(new)?.sha256)
        })?;
        say(&format!(
            "{}: sha256 {}; `touchstone-train evaluate` measures it on people it never saw",
            what.out.display(),
            hex::encode(sha256)
        ));
        Ok(())
    }

    /// Of weights that are not calibrated yet.
    fn manifest(&self) -> Manifest {
        let what = self.what;
        Manifest {
            name: what.name.clone(),
            version: what.bundle_version.clone(),
            architecture: architecture(what.preset),
            fusion: Fusion::Official,
            preprocessing: Preprocessing {
                crop: CropMode::Aligned,
                face_detector: "mtcnn-facenet-2.6.0".to_owned(),
            },
            calibration: Calibration::None,
            calibrated_on: String::new(),
            thresholds: None,
            licence: what.licence.clone(),
            training: self.story(),
            measured: Vec::new(),
        }
    }

    /// The bundle in `folder`, judged on the validation side, and what its scores mean. A stop ends it: the last checkpoint
    /// holds all steps.
    fn calibrated(&self, folder: &Path) -> Result<Judgement> {
        let mut model = engine::model(folder, self.with)?;
        let faces = self.validated(CALIBRATION_SAMPLES_MAX as usize);
        let samples = Exam::forged(faces, self.calibration_draws()).judged(
            &[Condition::AsDrawn],
            &mut |crops| model.score(crops),
            self.engine.forge_threads,
            &Progress::new("calibration", self.stop),
        );
        let samples = samples.map_err(|error| anyhow!("{error:#}; all steps are saved: --resume goes on"))?;
        let (calibration, thresholds) = match fitted(&samples) {
            Ok((calibration, found)) => (calibration, Some(found)),
            // A model that learned too little: it is kept, and abstains.
            Err(error) => {
                say(&format!(
                    "no calibration ({error}): verdicts of this bundle abstain; train for longer, or with more people"
                ));
                (Calibration::None, None)
            }
        };
        Ok(Judgement::of(samples, calibration, thresholds))
    }

    fn calibration_draws(&self) -> u64 {
        let faces = self.validated(CALIBRATION_SAMPLES_MAX as usize).len() as u64;
        (CALIBRATION_SAMPLES_MAX / faces).clamp(1, CALIBRATION_DRAWS)
    }

    fn validated(&self, most: usize) -> Pairs {
        self.material.validated(self.what.seed).at_most(most)
    }

    /// How the weights came to be, for the manifest.
    fn story(&self) -> String {
        let Settings { start, precision, pairs, pace, .. } = &self.settings;
        let faces = self.material.split.members(Side::Train).len();
        let loss = match pace.loss {
            Loss::CrossEntropy => "cross-entropy",
            Loss::AmSoftmax => "AM-softmax",
        };
        let localiser = match pace.localise {
            0.0 => String::new(),
            weight => format!(" and, weighted {weight}, the error of telling where the forgery is"),
        };
        format!(
            "{} steps of {pairs} faces and their forgeries, {faces} faces, from {start}; {loss}{localiser}, \
             AdamW {} with decay {}, {precision}, seed {}",
            pace.steps, pace.rate, pace.decay, pace.seed
        )
    }

    /// AUC by kind of forgery on the validation side, of the weights themselves: neither stored nor served yet.
    fn validate(&self, weights: &TwoStreamWeights) -> Result<BTreeMap<String, f64>> {
        let mut network = PlacedNetwork::new(weights, Fusion::Official, self.engine.validation)?;
        let progress = Progress::to_the_end("validation", self.stop, AFTER_VALIDATION);
        let mut judged = |exam: &Exam, condition| {
            exam.judged(&[condition], &mut |crops| network.score(crops), self.engine.forge_threads, &progress)
        };
        let made = Exam::forged(self.validated(VALIDATION_FACES_MAX), VALIDATION_DRAWS);
        let mut found = aucs(&judged(&made, Condition::AsDrawn)?, "");
        if let Some(given) = self.material.labelled() {
            found.append(&mut aucs(&judged(&given, Condition::Untouched)?, "given: "));
        }
        Ok(found)
    }
}

/// AUC by kind of forgery, those that are defined.
fn aucs(samples: &[Sample], before: &str) -> BTreeMap<String, f64> {
    let kinds: BTreeSet<&str> = samples.iter().map(|sample| &*sample.kind).collect();
    let auc = |kind: &str| {
        let of = scores(samples.iter().filter(|sample| sample.measures(kind)));
        Ranking::new(&of).auc().map(|auc| (format!("{before}{kind}"), auc))
    };
    kinds.into_iter().filter(|kind| *kind != AUTHENTIC).filter_map(auc).collect()
}

/// What scores mean, and where verdicts begin.
fn fitted(samples: &[Sample]) -> Result<(Calibration, Thresholds), CalibrationError> {
    let scored = scores(samples);
    let fitted = platt(&scored, Targets::Smoothed)?;
    Ok((fitted, thresholds(&scored, &fitted, Budgets::default())?))
}

pub(crate) fn architecture(preset: Preset) -> Architecture {
    match preset {
        Preset::Mini => Architecture::MINI,
        Preset::Full => Architecture::FULL,
    }
}

fn settings(what: &Train, start: String, engine: &Engine, material: &TrainingSet) -> Settings {
    let (share, most) = WARM_UP;
    let warm_up = ((what.steps as f64 * share) as u64).min(most);
    Settings {
        preset: architecture(what.preset).to_string(),
        start,
        precision: if engine.kind == Kind::Float { "f32" } else { "bf16" }.to_owned(),
        pairs: what.batch,
        forge: forge::VERSION,
        pace: Pace {
            steps: what.steps,
            warm_up,
            rate: what.rate,
            decay: what.decay,
            loss: what.loss,
            localise: what.localise,
            seed: what.seed,
        },
        data: material.split.digest(),
        given: material.given_digest(),
    }
}

/// Means over the steps since the last line.
struct Meter {
    started: Instant,
    waited: Duration,
    losses: f64,
    localisation: Option<f64>,
    steps: u64,
}

impl Meter {
    fn new(loader: &Loader) -> Self {
        Self { started: Instant::now(), waited: loader.waited(), losses: 0.0, localisation: None, steps: 0 }
    }

    fn count(&mut self, step: &Step) {
        self.losses += step.loss;
        if let Some(error) = step.localisation {
            *self.localisation.get_or_insert_default() += error;
        }
        self.steps += 1;
    }

    fn line(&self, done: u64, step: Step, images: usize, loader: &Loader) -> Line {
        let seconds = self.started.elapsed().as_secs_f64();
        Line {
            step: done,
            loss: Some(self.losses / self.steps as f64),
            localisation: self.localisation.map(|sum| sum / self.steps as f64),
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

/// How fast it went, and for how much of the time the device waited for samples: means over the log's lines.
fn speed(lines: &[Line]) -> String {
    let told: Vec<(f64, f64)> =
        lines.iter().filter_map(|line| Some((line.images_per_second?, line.waiting?))).collect();
    let mean = |of: fn(&(f64, f64)) -> f64| told.iter().map(of).sum::<f64>() / told.len().max(1) as f64;
    let (images, waiting) = (mean(|line| line.0), 100.0 * mean(|line| line.1));
    format!("{images:.1} images/s, of which samples were waited for {waiting:.2} % of the time")
}

fn curves(lines: &[Line]) -> String {
    let loss: Vec<(u64, f64)> = lines.iter().filter_map(|line| Some((line.step, line.loss?))).collect();
    let given: BTreeSet<&str> =
        lines.iter().flat_map(|line| line.validation.keys()).map(String::as_str).collect();
    let made = Manipulation::ALL.map(Manipulation::as_str);
    let names = made.into_iter().chain(given.into_iter().filter(|name| !made.contains(name)));
    let auc = |name: &str| -> Vec<(u64, f64)> {
        lines.iter().filter_map(|line| Some((line.step, *line.validation.get(name)?))).collect()
    };
    let points: Vec<(&str, Vec<(u64, f64)>)> = names.map(|name| (name, auc(name))).collect();
    let named: Vec<_> = points.iter().map(|(name, points)| plots::Curve { name, points }).collect();
    plots::training("Training", &loss, &named)
}
