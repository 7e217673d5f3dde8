//! The command line: these types are the manual.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  touchstone --data ./data submit photos/             each picture is one media
  touchstone submit s3://media/clip-7/ --lane live    all pictures below the prefix are one media
  touchstone list --outcome likely-forged --since 24h
  touchstone verify                                   nothing lost, nothing double?

Exit codes (sysexits.h): 0 done, 64 usage or configuration, 65 refused or a broken promise, 66 not there,
69 unreachable, 70 bug, 74 file, 75 not now, 76 other version, 77 not allowed.";

/// The command line itself, for completions and for whoever checks what documents say of it.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Tells which media show a forged face: submit media, read verdicts.
#[derive(Debug, Parser)]
#[command(name = "touchstone", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct Global {
    /// The data folder of a standalone or a fleet: addresses and store keys are read from its connection.toml
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The service's address, such as http://127.0.0.1:7411
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Where verdicts are asked for, if query is a process of its own
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) query: Option<String>,
    /// Whose media these are
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// Configuration file; otherwise ~/.config/touchstone/cli.toml if it exists
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// For people, or one JSON object a line
    #[arg(short, long, global = true, value_enum, value_name = "FORM", default_value = "table")]
    pub(crate) output: Output,
    /// No progress bars and no hints
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit media and wait for their verdicts
    Submit(Submit),
    /// Show verdicts in full, by media id or verdict id
    Get(Get),
    /// List verdicts, newest first
    List(List),
    /// Show verdicts as they come
    Watch(Watch),
    /// Audit: is nothing lost and nothing double?
    Verify(Verify),
    /// Import, inspect and verify model bundles
    #[cfg(feature = "torch")]
    #[command(subcommand)]
    Model(Model),
    /// Check or show this command line's configuration
    #[command(subcommand)]
    Config(Config),
    /// Print the completion script of a shell
    Completions(Completions),
}

#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// Files, folders (each picture below is one media) and s3:// URIs (one object, or with a slash at the end
    /// a prefix whose pictures are the frames of one media)
    #[arg(required = true, value_name = "WHAT")]
    pub(crate) what: Vec<String>,
    /// A folder's pictures are the frames of one media, in natural order
    #[arg(long)]
    pub(crate) as_frames: bool,
    /// The media's id; otherwise made of content and name, or the URI [only with a single media]
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// What the pictures show
    #[arg(long, value_enum, default_value = "detect")]
    pub(crate) faces: Faces,
    /// How soon an answer is wanted
    #[arg(long, value_enum, default_value = "standard")]
    pub(crate) lane: Lane,
    /// An answer is worth most within this time, such as 30s
    #[arg(long, value_name = "TIME")]
    pub(crate) due: Option<ops::config::HumanDuration>,
    /// Carried into the verdict; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) label: Vec<(String, String)>,
    /// Same id and same request: same answer [only with a single media]
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// Raised to replace an earlier verdict
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) generation: u32,
    /// The bucket that files are uploaded to; otherwise upload.bucket
    #[arg(long, value_name = "NAME")]
    pub(crate) bucket: Option<String>,
    /// Return once the log has the media
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// How long to wait for the verdicts
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub(crate) timeout: ops::config::HumanDuration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Faces {
    /// Whole scenes: find the faces
    Detect,
    /// Each picture already is one face crop
    Cropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lane {
    /// Somebody waits
    Live,
    /// Uploads as they come
    Standard,
    /// Backfill
    Bulk,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Media ids, or verdict ids (64 hex digits)
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Take 64 hex digits for a media id as well
    #[arg(long)]
    pub(crate) media: bool,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters (all must hold)")]
pub(crate) struct Filters {
    /// With this outcome; may be repeated
    #[arg(long, value_enum)]
    pub(crate) outcome: Vec<Outcome>,
    /// Made at or after: a time (2026-11-24T08:00:00Z) or how long ago (2h)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Made before: a time or how long ago
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// P(forged) at least
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(crate) score_min: Option<f32>,
    /// P(forged) at most
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(crate) score_max: Option<f32>,
    /// By the model of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// By the model of this SHA-256
    #[arg(long, value_name = "HEX")]
    pub(crate) model_sha256: Option<String>,
    /// With this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) label: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Outcome {
    LikelyForged,
    LikelyAuthentic,
    Inconclusive,
    NotApplicable,
    Failed,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) filters: Filters,
    /// At most so many; 0: all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) filters: Filters,
    /// Begin with the oldest verdict that the log still has
    #[arg(long, conflicts_with = "resume")]
    pub(crate) from_start: bool,
    /// Go on after an earlier watch, with the token it left
    #[arg(long, value_name = "TOKEN")]
    pub(crate) resume: Option<String>,
    /// Keep the token in this file, and go on from it if it exists
    #[arg(long, value_name = "FILE", conflicts_with_all = ["resume", "from_start"])]
    pub(crate) state: Option<PathBuf>,
    /// End after so many verdicts
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Compare the topics only, not the store
    #[arg(long)]
    pub(crate) skip_store: bool,
}

#[cfg(feature = "torch")]
#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// Make a bundle of a checkpoint (.pth, flat or nested, or .safetensors); nothing in it is executed
    Import(ModelImport),
    /// Make the face detector's weights of facenet-pytorch's three files
    ImportFaces(ModelImportFaces),
    /// Show a bundle's manifest
    Inspect(ModelBundle),
    /// Check a bundle's digests and compare its scores with its golden vectors
    Verify(ModelBundle),
}

#[cfg(feature = "torch")]
#[derive(Debug, Args)]
pub(crate) struct ModelImport {
    /// The checkpoint
    #[arg(value_name = "CKPT")]
    pub(crate) checkpoint: PathBuf,
    /// Whose code wrote it: they fuse the streams in different ways
    #[arg(long, value_enum)]
    pub(crate) dialect: Dialect,
    /// The bundle's folder; made, and must not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The bundle's name
    #[arg(long, default_value = "two-stream")]
    pub(crate) name: String,
    /// The bundle's version
    #[arg(long, default_value = "1")]
    pub(crate) bundle_version: String,
    /// The network's size
    #[arg(long, value_enum, default_value = "full")]
    pub(crate) preset: Preset,
    /// How faces were cut for its training; otherwise as the dialect's authors did
    #[arg(long, value_enum)]
    pub(crate) crop: Option<Crop>,
    /// Store the weights in half as many bytes
    #[arg(long)]
    pub(crate) f16: bool,
}

#[cfg(feature = "torch")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// As published
    Full,
    /// A quarter as wide, for tests
    Mini,
}

#[cfg(feature = "torch")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// The paper's own code
    Official,
    /// DeepfakeBench
    Deepfakebench,
}

#[cfg(feature = "torch")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Crop {
    /// By five landmarks, as DeepfakeBench does
    Aligned,
    /// The detector's box, enlarged, as FaceForensics++ does
    Box,
    /// Not at all: each picture is the crop
    None,
}

#[cfg(feature = "torch")]
#[derive(Debug, Args)]
pub(crate) struct ModelImportFaces {
    /// pnet.pt of the facenet-pytorch wheel
    #[arg(long, value_name = "FILE")]
    pub(crate) pnet: PathBuf,
    /// rnet.pt
    #[arg(long, value_name = "FILE")]
    pub(crate) rnet: PathBuf,
    /// onet.pt
    #[arg(long, value_name = "FILE")]
    pub(crate) onet: PathBuf,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[cfg(feature = "torch")]
#[derive(Debug, Args)]
pub(crate) struct ModelBundle {
    /// The bundle's folder
    #[arg(value_name = "DIR")]
    pub(crate) bundle: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Say whether the configuration is valid, and list all that is not
    Check,
    /// Print every knob with its value, secrets hidden
    Show,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("wants KEY=VALUE")?;
    if key.is_empty() { Err("the key is empty".to_owned()) } else { Ok((key.to_owned(), value.to_owned())) }
}

fn probability(text: &str) -> Result<f32, String> {
    let value = text.parse().map_err(|_| "wants a number from 0 to 1")?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("wants a number from 0 to 1".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_anywhere() {
        for line in ["touchstone --tenant acme list -o json", "touchstone list --tenant acme --output json"] {
            let parsed = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!((parsed.global.tenant.as_deref(), parsed.global.output), (Some("acme"), Output::Json));
        }
    }
}
