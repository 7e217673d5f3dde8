//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::forge::Manipulation;
use crate::learner::Loss;

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
    /// Whether the command has something to save before it ends.
    pub fn saves(&self) -> bool {
        matches!(self.command, Command::Train(_))
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
    /// Folders of photos, one person in each; the file's name is the person's.
    #[arg(long, required = true, num_args = 1..)]
    pub(crate) real: Vec<PathBuf>,
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
    #[arg(long, default_value_t = 16)]
    pub(crate) batch: usize,
    /// The largest learning rate.
    #[arg(long, default_value_t = 1e-3)]
    pub(crate) rate: f64,
    /// Weight decay.
    #[arg(long, default_value_t = 0.05)]
    pub(crate) decay: f64,
    #[arg(long, value_enum, default_value_t = Loss::CrossEntropy)]
    pub(crate) loss: Loss,
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
    #[arg(long, default_value = "two-stream")]
    pub(crate) name: String,
    /// The bundle's version.
    #[arg(long, default_value = "1")]
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
    /// A folder of photos, of which forgeries are made, or a manifest of labelled pictures: CSV or JSON lines with
    /// path, label, identity, group, manipulation.
    pub(crate) data: PathBuf,
    /// Everything measured, as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// A folder for the plots (SVG).
    #[arg(long)]
    pub(crate) pictures: Option<PathBuf>,
    /// Draws of each face: forgeries and losses.
    #[arg(long, default_value_t = 20)]
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
    #[arg(long, default_value_t = 0.01)]
    pub(crate) false_alarms: f64,
    /// Share of the forged that may be LIKELY_AUTHENTIC.
    #[arg(long, default_value_t = 0.05)]
    pub(crate) misses: f64,
    /// Draws of each face.
    #[arg(long, default_value_t = 20)]
    pub(crate) draws: u64,
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
    #[arg(long, default_value_t = 12)]
    pub(crate) pairs: u64,
    /// Of everything drawn.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// How large the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// A quarter of the width, half of the middle blocks.
    Mini,
    /// As published.
    Full,
}
