//! The command line.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use models::bundle::{NAME, is_name};

use crate::data::photos::Naming;
use crate::data::split::Split;
use crate::forge::Manipulation;
use crate::learn::learner::Loss;

/// Trains, evaluates and calibrates Touchstone's two-stream network on forgeries made on the fly.
#[derive(Debug, Parser)]
#[command(name = "touchstone-train", version)]
pub struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) shared: Shared,
}

impl Arguments {
    /// From the process's command line; a wrong one, or a question for help, ends the process.
    pub fn read() -> Self {
        let matches = Self::command().get_matches();
        Self::of(&matches).unwrap_or_else(|error| error.exit())
    }

    fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut arguments = Self::from_arg_matches(matches)?;
        arguments.shared.line = line(matches);
        Ok(arguments)
    }
}

/// What every command may be told.
#[derive(Clone, Debug, Args)]
pub(crate) struct Shared {
    /// The face detector's weights, made by `touchstone model import-faces`.
    #[arg(
        long,
        global = true,
        default_value = ".deps/models/mtcnn.safetensors",
        env = "TOUCHSTONE_FACE_DETECTOR"
    )]
    pub(crate) face_detector: PathBuf,
    /// auto, cpu or cuda:N.
    #[arg(long, global = true, default_value = "auto")]
    pub(crate) device: String,
    /// Threads of the network on a CPU; 0: one for each core.
    #[arg(long, global = true, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Threads that make forgeries; 0: one on a CPU, as many as cores but one beside a GPU.
    #[arg(long, global = true, default_value_t = 0)]
    pub(crate) forge_threads: usize,
    /// Which name tells whose photo it is: the file's, unless the bundle at hand was trained by the folders'. A manifest's own
    /// column of identities comes first.
    #[arg(long, global = true, value_enum)]
    pub(crate) identity: Option<Naming>,
    /// The command line, for whoever wants to do the same again.
    #[arg(skip)]
    pub(crate) line: String,
}

impl Shared {
    /// How photos are told apart: as said, or as the bundle that `kept` is of was trained.
    pub(crate) fn naming(&self, kept: Option<&Split>) -> Naming {
        self.identity.or(kept.map(|split| split.naming)).unwrap_or_default()
    }
}

/// Of no importance for what comes out: where a run stopped and went on, and what else was written where.
const OF_THE_DAY: [&str; 6] = ["resume", "until", "run", "faces", "json", "pictures"];

/// The command line with the values that were not given, as they change from version to version; those that every command
/// takes, where they were given. For a POSIX shell.
fn line(matches: &ArgMatches) -> String {
    let command = Arguments::command();
    let mut words = vec![command.get_name().to_owned()];
    if let Some((name, given)) = matches.subcommand() {
        words.push(name.to_owned());
        let own = command.find_subcommand(name).into_iter().flat_map(clap::Command::get_arguments);
        own.for_each(|argument| add(&mut words, argument, given));
        let was_given = |argument: &&Arg| {
            given.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine)
        };
        command.get_arguments().filter(was_given).for_each(|argument| add(&mut words, argument, given));
    }
    words.join(" ")
}

fn add(words: &mut Vec<String>, argument: &Arg, given: &ArgMatches) {
    let id = argument.get_id().as_str();
    let name = argument.get_long().map(|name| format!("--{name}"));
    match argument.get_action() {
        _ if OF_THE_DAY.contains(&id) => {}
        ArgAction::SetTrue => words.extend(name.filter(|_| given.get_flag(id))),
        _ => {
            if let Some(values) = given.get_raw(id) {
                words.extend(name);
                words.extend(values.map(|value| quoted(&value.to_string_lossy())));
            }
        }
    }
}

/// As one word of a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "-_./:=,+@%".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Learn from photos and write a calibrated bundle.
    Train(Train),
    /// Measure a bundle on photos or labelled pictures that it never saw.
    Evaluate(Evaluate),
    /// Fit a bundle's calibration and thresholds anew.
    Calibrate(Calibrate),
    /// Write a photo with its face forged, for a trial.
    Forge(Forge),
    /// A contact sheet of what the network is taught.
    Preview(Preview),
}

#[derive(Debug, Args)]
pub(crate) struct Train {
    /// Folders of photos, one person in each photo; --identity says whose.
    #[arg(long, required = true, num_args = 1..)]
    pub(crate) real: Vec<PathBuf>,
    /// Forgeries of your own to learn from beside those made here: a manifest as `evaluate` reads it. Each is told from an
    /// authentic picture of the same identity, or of anybody where there is none; authentic ones are learned from like photos.
    #[arg(long, value_name = "MANIFEST")]
    pub(crate) pairs: Option<PathBuf>,
    /// The bundle's folder; must not exist.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Checkpoints, log and found faces; OUT.run if not named.
    #[arg(long)]
    pub(crate) run: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Preset::Mini)]
    pub(crate) preset: Preset,
    /// Start from a bundle's folder or an ImageNet Xception's file instead of from chance.
    #[arg(long)]
    pub(crate) init: Option<PathBuf>,
    /// Store the weights whole instead of halved.
    #[arg(long)]
    pub(crate) f32: bool,
    /// Go on from the run's last checkpoint.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Steps in all.
    #[arg(long, default_value_t = 6000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) steps: u64,
    /// Stop after this step, as Ctrl-C would.
    #[arg(long)]
    pub(crate) until: Option<u64>,
    /// Faces in a step; as many forgeries come with them.
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    pub(crate) batch: usize,
    /// The largest learning rate.
    #[arg(long, default_value_t = 1e-3, value_parser = above_zero)]
    pub(crate) rate: f64,
    /// Weight decay.
    #[arg(long, default_value_t = 0.05)]
    pub(crate) decay: f64,
    #[arg(long, value_enum, default_value_t = Loss::CrossEntropy)]
    pub(crate) loss: Loss,
    /// Weight of a second error, beside the loss: how well the last features tell where the forgery is; 0: it is not asked.
    #[arg(long, default_value_t = 0.0, value_parser = from_zero)]
    pub(crate) localise: f64,
    /// auto (bf16 on a GPU, f32 on a CPU), f32 or bf16.
    #[arg(long, default_value = "auto")]
    pub(crate) precision: String,
    /// Of everything drawn.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Steps between validations.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) validate_every: u64,
    /// Steps between checkpoints.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) save_every: u64,
    /// The bundle's name.
    #[arg(long, default_value = "two-stream", value_parser = name)]
    pub(crate) name: String,
    /// The bundle's version.
    #[arg(long, default_value = "1", value_parser = name)]
    pub(crate) bundle_version: String,
    /// The licence of the weights, for the manifest and the card.
    #[arg(long, default_value = "unspecified")]
    pub(crate) licence: String,
    /// What the photos are and who may use them, for the card.
    #[arg(long, default_value = "not stated")]
    pub(crate) data_statement: String,
}

#[derive(Debug, Args)]
pub(crate) struct Evaluate {
    /// The bundle's folder.
    pub(crate) bundle: PathBuf,
    /// A folder of photos, of which forgeries are made; or labelled pictures: a folder with `real` and `forged` in it, or a
    /// manifest, CSV or JSON lines with path, label, identity, group, manipulation.
    pub(crate) data: PathBuf,
    /// Everything measured, as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// A folder for the plots, and for a contact sheet of the worst-judged pictures (SVG).
    #[arg(long)]
    pub(crate) pictures: Option<PathBuf>,
    /// Write what was measured into the bundle: table and plots into its card, the numbers into its manifest.
    #[arg(long)]
    pub(crate) card: bool,
    /// Keep the faces found in this folder for the next time. Else they lie in the system's temporary folder meanwhile.
    #[arg(long)]
    pub(crate) faces: Option<PathBuf>,
    /// Draws of each face: forgeries and losses.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) draws: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Calibrate {
    /// The bundle's folder.
    pub(crate) bundle: PathBuf,
    /// A folder of photos, or a manifest of labelled pictures.
    pub(crate) data: PathBuf,
    /// The new bundle's folder; must not exist.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// One parameter instead of Platt's two.
    #[arg(long)]
    pub(crate) temperature: bool,
    /// Share of the authentic that may be LIKELY_FORGED.
    #[arg(long, default_value_t = 0.01, value_parser = share)]
    pub(crate) false_alarms: f64,
    /// Share of the forged that may be LIKELY_AUTHENTIC.
    #[arg(long, default_value_t = 0.05, value_parser = share)]
    pub(crate) misses: f64,
    /// Draws of each face.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) draws: u64,
    /// Keep the faces found in this folder for the next time.
    #[arg(long)]
    pub(crate) faces: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Forge {
    /// The photo; its largest face is forged.
    pub(crate) photo: PathBuf,
    /// The forged photo: .png, without loss, or .jpg.
    #[arg(long)]
    pub(crate) out: PathBuf,
    #[arg(long, value_enum, default_value_t = Manipulation::SelfBlended)]
    pub(crate) manipulation: Manipulation,
    /// A photo of somebody else, whose face is put in: for `swapped`, and every other `regional`.
    #[arg(long)]
    pub(crate) donor: Option<PathBuf>,
    /// Of everything drawn.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Which forgery: the same photos, seed and number give the same file.
    #[arg(long, default_value_t = 0)]
    pub(crate) number: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Preview {
    /// Folders of photos.
    #[arg(long, required = true, num_args = 1..)]
    pub(crate) real: Vec<PathBuf>,
    /// The picture (SVG).
    #[arg(long, default_value = "preview.svg")]
    pub(crate) out: PathBuf,
    /// Pairs shown.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) pairs: u64,
    /// Of everything drawn.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Keep the faces found in this folder for the next time.
    #[arg(long)]
    pub(crate) faces: Option<PathBuf>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "a number from 1 on".to_owned())
}

fn name(word: &str) -> Result<String, String> {
    is_name(word).then(|| word.to_owned()).ok_or_else(|| NAME.to_owned())
}

fn above_zero(text: &str) -> Result<f64, String> {
    number(text, |number| number > 0.0).ok_or_else(|| "a number above 0".to_owned())
}

fn from_zero(text: &str) -> Result<f64, String> {
    number(text, |number| number >= 0.0).ok_or_else(|| "a number from 0 on".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    number(text, |share| (0.0..1.0).contains(&share)).ok_or_else(|| "a share: from 0 on, below 1".to_owned())
}

fn number(text: &str, is_good: impl FnOnce(f64) -> bool) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite() && is_good(*number))
}

/// How large the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// A quarter of the width, half of the middle blocks.
    Mini,
    /// As published.
    Full,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Arguments {
        let matches = Arguments::command().try_get_matches_from(line).unwrap();
        Arguments::of(&matches).unwrap()
    }

    #[test]
    fn the_line_holds_defaults_and_quotes_and_says_the_same_again() {
        let found = parsed(&[
            "/somewhere/touchstone-train",
            "evaluate",
            "my bundle",
            "it's photos",
            "--card",
            "--pictures",
            "/somewhere/plots",
            "--device",
            "cpu",
        ]);
        let expected =
            "touchstone-train evaluate 'my bundle' 'it'\\''s photos' --card --draws 20 --device cpu";
        assert_eq!(found.shared.line, expected);

        let real =
            ["touchstone-train", "train", "--real", "a b", "c", "--resume", "--until", "7", "--out", "x"];
        let found = parsed(&real).shared.line;
        assert!(found.starts_with("touchstone-train train --real 'a b' c --out x --preset mini "), "{found}");
        assert!(found.contains(" --rate 0.001 ") && found.contains(" --loss cross-entropy "), "{found}");
        assert!(!found.contains("resume") && !found.contains("until"), "{found}");
        // A shell reads it as it was meant.
        let shell =
            std::process::Command::new("sh").args(["-c", &format!("printf '%s\\n' {found}")]).output();
        let words = String::from_utf8(shell.unwrap().stdout).unwrap();
        assert_eq!(parsed(&words.lines().collect::<Vec<_>>()).shared.line, found);
    }
}
