//! What the commands have in common: the device, the detector, words for people.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use models::face_detector::Mtcnn;
use models::{DeviceChoice, DeviceConfig, PrecisionChoice};
use tch::{Device, Kind};

use crate::arguments::Shared;
use crate::faces::{Faces, Harvest};

/// What training runs on.
pub(crate) struct Engine {
    pub(crate) device: Device,
    pub(crate) kind: Kind,
    pub(crate) forge_threads: usize,
}

impl Engine {
    /// On a CPU, `auto` is f32: only there is a stop exact to the bit, and bf16 gains a fifth (measured 2026-11-27: 14.0
    /// against 11.8 images/s of `mini` on two cores with AVX512-BF16).
    pub(crate) fn open(with: &Shared, precision: &str) -> Result<Self> {
        let config = config(with, precision.parse().context("--precision")?)?;
        let placement = config.open()?;
        let device = placement.device();
        let kind = match config.precision {
            PrecisionChoice::Auto if device == Device::Cpu => Kind::Float,
            _ => placement.kind(),
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let forge_threads = match with.forge_threads {
            0 if device == Device::Cpu => 1,
            0 => cores.saturating_sub(1).max(1),
            told => told,
        };
        Ok(Self { device, kind, forge_threads })
    }
}

/// The device as the services are told it.
pub(crate) fn config(with: &Shared, precision: PrecisionChoice) -> Result<DeviceConfig> {
    let device: DeviceChoice = with.device.parse().context("--device")?;
    Ok(DeviceConfig { device, precision, threads: with.threads, batch_max: 0 })
}

/// The photos' faces, with the fleet's own detector.
pub(crate) fn faces(
    photos: &[PathBuf],
    identity: &dyn Fn(&Path) -> String,
    folder: &Path,
    with: &Shared,
) -> Result<(Faces, Harvest)> {
    Faces::find(photos, identity, folder, &mut detector(with)?, &progress("faces"))
}

/// The fleet's own face detector.
pub(crate) fn detector(with: &Shared) -> Result<Mtcnn> {
    let config = config(with, PrecisionChoice::F32)?;
    let path = &with.face_detector;
    Mtcnn::load(path, &config).with_context(|| {
        format!("{}: `make trainer` makes it; --face-detector names another", path.display())
    })
}

/// A line of progress for people; nothing where nobody looks.
pub(crate) fn progress(title: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {pos}/{len} {wide_bar} {per_sec}, {eta} left");
    let bar = ProgressBar::new(0).with_prefix(title);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// What was asked for, on standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout().lock(), "{text}").context("standard output")
}

/// A line on standard error: standard output is for what is asked for.
#[allow(clippy::print_stderr)]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}
