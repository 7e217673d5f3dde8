//! What computes, and where: the device, the face detector, the bundle that is judged.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use forensics::{CropMode, ForgeryDetector};
use models::device::Placement;
use models::face_detector::Mtcnn;
use models::{DeviceChoice, DeviceConfig, PrecisionChoice, TwoStream};
use tch::{Device, Kind};

use crate::arguments::Shared;

/// What training runs on.
pub(crate) struct Engine {
    pub(crate) device: Device,
    pub(crate) kind: Kind,
    /// The same device, in f32: a validation looks at the weights, not at an arithmetic.
    pub(crate) validation: Placement,
    pub(crate) forge_threads: usize,
}

impl Engine {
    /// On a CPU, `auto` is f32: only there is a stop exact to the bit, and bf16 gains a fifth (measured 2026-11-27: 14.0
    /// against 11.8 images/s of `mini` on two cores with AVX512-BF16).
    pub(crate) fn open(with: &Shared, precision: &str) -> Result<Self> {
        let config = config(with, precision.parse().context("--precision")?)?;
        let placement = config.open()?;
        let validation = DeviceConfig { precision: PrecisionChoice::F32, ..config }.open()?;
        let device = placement.device();
        let kind = match config.precision {
            PrecisionChoice::Auto if device == Device::Cpu => Kind::Float,
            _ => placement.kind(),
        };
        Ok(Self { device, kind, validation, forge_threads: forge_threads(with, device == Device::Cpu) })
    }
}

/// Threads that make samples, so that a CPU keeps its own for the network, and a GPU does not wait.
pub(crate) fn forge_threads(with: &Shared, on_cpu: bool) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match with.forge_threads {
        0 if on_cpu => 1,
        0 => cores.saturating_sub(1).max(1),
        told => told,
    }
}

/// The device as the services are told it.
pub(crate) fn config(with: &Shared, precision: PrecisionChoice) -> Result<DeviceConfig> {
    let device: DeviceChoice = with.device.parse().context("--device")?;
    Ok(DeviceConfig { device, precision, threads: with.threads, batch_max: 0 })
}

/// The fleet's own face detector.
pub(crate) fn detector(with: &Shared) -> Result<Mtcnn> {
    let config = config(with, PrecisionChoice::F32)?;
    let path = &with.face_detector;
    Mtcnn::load(path, &config).with_context(|| {
        format!("{}: `make trainer` makes it; --face-detector names another", path.display())
    })
}

/// The bundle as it is served, checked.
pub(crate) fn model(folder: &Path, with: &Shared) -> Result<TwoStream> {
    let config = config(with, PrecisionChoice::Auto)?;
    let model = TwoStream::load(folder, &config).with_context(|| folder.display().to_string())?;
    let crop = model.preprocessing().crop;
    ensure!(
        crop == CropMode::Aligned,
        "{}: it judges {} crops, and only aligned ones are made here: name a bundle for those",
        folder.display(),
        crop.as_str()
    );
    Ok(model)
}
