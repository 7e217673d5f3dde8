//! A training run's folder: what is needed to go on after a stop, and what a person wants to see meanwhile.
//!
//! `faces.json`, `faces.rgb`: the faces found. `split.json`: who is learned from. `checkpoint.safetensors`: all that the
//! next step depends on. `log.jsonl`: a line for every reported step and validation. `curves.svg`: the same as a picture.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use models::tensor_file::TensorFile;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::write_whole;
use crate::learn::learner::{Learner, Pace};
use crate::telling::say;

/// A run's folder, held by one process.
pub(crate) struct Run {
    folder: PathBuf,
    log: Option<File>,
    _lock: File,
}

/// What must be the same when a run goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) preset: String,
    pub(crate) start: String,
    pub(crate) precision: String,
    pub(crate) pairs: usize,
    /// Which samples numbers stand for.
    pub(crate) forge: u32,
    pub(crate) pace: Pace,
    /// Digest of the faces and their sides.
    pub(crate) data: String,
    /// Digest of the given forgeries, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) given: Option<String>,
}

impl Settings {
    /// What differs, for people: `--batch: 16 there, 8 here`.
    fn other_than(&self, kept: &Self) -> Result<Vec<String>> {
        let [there, here] = [kept, self].map(serde_json::to_value);
        let mut other = Vec::new();
        differing("", &there?, &here?, &mut other);
        Ok(other)
    }
}

fn differing(name: &str, there: &Value, here: &Value, other: &mut Vec<String>) {
    let (Value::Object(old), Value::Object(new)) = (there, here) else {
        match told(name) {
            _ if there == here => {}
            Told::Option(name) => {
                let [there, here] = [there, here]
                    .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
                other.push(format!("{name}: {there} there, {here} here"));
            }
            Told::Words(words) => other.push(words.to_owned()),
        }
        return;
    };
    for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
        let value = |of: &serde_json::Map<String, Value>| of.get(name).cloned().unwrap_or_default();
        differing(name, &value(old), &value(new), other);
    }
}

/// How a person knows a setting.
enum Told {
    /// By what it is asked for with; its value says something.
    Option(String),
    Words(&'static str),
}

fn told(setting: &str) -> Told {
    match setting {
        "start" => Told::Option("--init".to_owned()),
        "pairs" => Told::Option("--batch".to_owned()),
        "warm_up" => Told::Words("another warm-up, which goes by --steps"),
        "forge" => Told::Words("another version of the forge made its samples"),
        "data" => Told::Words("other photos, or people on other sides"),
        "given" => Told::Words("other given forgeries"),
        option => Told::Option(format!("--{option}")),
    }
}

/// A line of the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Steps done.
    pub(crate) step: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) loss: Option<f64>,
    /// The localiser's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) localisation: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gradient: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) images_per_second: Option<f64>,
    /// Share of the time that the device waited for batches, in [0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) waiting: Option<f64>,
    /// AUC on the validation side, by manipulation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) validation: BTreeMap<String, f64>,
}

const CHECKPOINT: &str = "checkpoint.safetensors";
const LOG: &str = "log.jsonl";
/// Weights, averages and moments of the full network are 0.9 GB.
const CHECKPOINT_BYTES_MAX: u64 = 4 << 30;

impl Run {
    /// Takes the folder for this process, before anything in it is touched. There must be no checkpoint but to `resume`.
    pub(crate) fn take(folder: &Path, resume: bool) -> Result<Self> {
        let shown = folder.display();
        std::fs::create_dir_all(folder).with_context(|| shown.to_string())?;
        let lock = File::create(folder.join("lock")).with_context(|| shown.to_string())?;
        lock.try_lock().with_context(|| format!("{shown}: another process trains there"))?;
        let checkpoint = folder.join(CHECKPOINT).exists();
        ensure!(
            resume || !checkpoint,
            "{shown} holds a checkpoint: --resume goes on from it, another --run starts anew"
        );
        if resume && !checkpoint {
            say("no checkpoint yet: this run begins with its first step");
        }
        Ok(Self { folder: folder.to_owned(), log: None, _lock: lock })
    }

    /// The learner goes on where a checkpoint left it, if there is one, and the log loses what came later.
    pub(crate) fn restore(&mut self, settings: &Settings, learner: &mut Learner) -> Result<()> {
        let checkpoint = self.folder.join(CHECKPOINT);
        if checkpoint.exists() {
            let shown = checkpoint.display();
            let file = TensorFile::read(&checkpoint, CHECKPOINT_BYTES_MAX)?;
            let kept = file.metadata.get("settings").with_context(|| format!("{shown}: not a checkpoint"))?;
            let kept: Settings =
                serde_json::from_str(kept).with_context(|| format!("{shown}: its settings"))?;
            let other = settings.other_than(&kept)?;
            ensure!(
                other.is_empty(),
                "{shown} belongs to other settings ({}): give the same again, or another --run",
                other.join("; ")
            );
            learner.restore(&file.tensors).with_context(|| shown.to_string())?;
        }
        let path = self.folder.join(LOG);
        // As they were written: a number that is read and written again may change its last digit.
        let mut text = String::new();
        for line in whole_lines(&path)? {
            if parsed(&line, &path)?.step <= learner.done() {
                text += &format!("{line}\n");
            }
        }
        write_whole(&path, text.as_bytes())?;
        let log = OpenOptions::new().append(true).open(&path).with_context(|| path.display().to_string())?;
        self.log = Some(log);
        Ok(())
    }

    pub(crate) fn note(&mut self, line: &Line) -> Result<()> {
        let log = self.log.as_mut().context("the log is opened when the run goes on")?;
        let text = format!("{}\n", serde_json::to_string(line)?);
        log.write_all(text.as_bytes()).context(LOG)
    }

    /// On disk when this returns; before, the old one is.
    pub(crate) fn save(&self, learner: &Learner, settings: &Settings) -> Result<()> {
        let metadata = HashMap::from([("settings".to_owned(), serde_json::to_string(settings)?)]);
        let file = TensorFile { tensors: learner.state()?, metadata };
        write_whole(&self.folder.join(CHECKPOINT), &file.to_bytes()?)
    }

    pub(crate) fn lines(&self) -> Result<Vec<Line>> {
        let path = self.folder.join(LOG);
        whole_lines(&path)?.iter().map(|line| parsed(line, &path)).collect()
    }
}

/// The log's whole lines; a crash may have cut the last one.
fn whole_lines(path: &Path) -> Result<Vec<String>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let whole = text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok());
    Ok(whole.map(str::to_owned).collect())
}

fn parsed(line: &str, path: &Path) -> Result<Line> {
    serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))
}
