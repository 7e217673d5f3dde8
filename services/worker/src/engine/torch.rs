//! The real engines, through libtorch.

use std::path::{Path, PathBuf};

use forensics::{CropMode, DetectorError, FaceDetector, ForgeryDetector, Preprocessing};
use models::face_detector::Mtcnn;
use models::{Architecture, Bundle, DeviceConfig, LoadError, TwoStream};
use ops::{Exit, ExitReason};

use super::{EngineConfig, FaceFactory, ForgeryFactory};

/// Begins the name of untrained weights; what follows is the architecture.
const SEEDED: &str = "seeded:";

/// What the untrained weights are drawn from. Chosen; a verdict names the digest that comes of it.
const SALT: &str = "touchstone";

/// What untrained weights are said to be made for: the face detector that this program has.
const FACE_DETECTOR: &str = "mtcnn-facenet-2.6.0";

pub(super) fn prepare_process() {
    models::prepare_process();
}

pub(super) fn forgery(config: &EngineConfig) -> Result<ForgeryFactory, Exit> {
    let device = device(config)?;
    let Some(name) = config.model.strip_prefix(SEEDED) else {
        let folder = PathBuf::from(&config.model);
        return Ok(Box::new(move || network(&folder, TwoStream::load(&folder, &device))));
    };
    let architecture = Architecture::preset(name)
        .map_err(|error| ExitReason::Config.because(format_args!("worker.engine.model: {error}")))?;
    let seeded = PathBuf::from(&config.model);
    Ok(Box::new(move || {
        let preprocessing =
            Preprocessing { crop: CropMode::Aligned, face_detector: FACE_DETECTOR.to_owned() };
        let bundle = Bundle::seeded(architecture, SALT, preprocessing).map_err(LoadError::from);
        network(&seeded, bundle.and_then(|bundle| TwoStream::from_bundle(bundle, &device)))
    }))
}

/// What was loaded, or how the process ends.
fn network(model: &Path, loaded: Result<TwoStream, LoadError>) -> Result<Box<dyn ForgeryDetector>, Exit> {
    let detector = loaded.map_err(|error| match &error {
        LoadError::Bundle(_) => ExitReason::Refused.because(format_args!(
            "the model {}: {error} (a model is a bundle's folder, such as `touchstone-train` and `touchstone model import` make)",
            model.display()
        )),
        LoadError::Detector(DetectorError::SelfTest(_)) => ExitReason::Refused.because(error),
        LoadError::Device(_) => ExitReason::Unavailable.because(error),
        LoadError::Detector(DetectorError::OutOfMemory { .. }) => ExitReason::Temporary.because(error),
        LoadError::Detector(_) => ExitReason::Bug.because(error),
    })?;
    Ok(Box::new(detector))
}

pub(super) fn faces(config: &EngineConfig) -> Result<FaceFactory, Exit> {
    let device = device(config)?;
    let file = PathBuf::from(&config.faces);
    Ok(Box::new(move || {
        let detector = Mtcnn::load(&file, &device).map_err(|error| {
            ExitReason::Refused.because(format_args!("face detector {}: {error}", file.display()))
        })?;
        Ok(Box::new(detector) as Box<dyn FaceDetector>)
    }))
}

fn device(config: &EngineConfig) -> Result<DeviceConfig, Exit> {
    let wrong = |key: &str, error: &dyn std::fmt::Display| {
        ExitReason::Config.because(format_args!("worker.engine.{key}: {error}"))
    };
    Ok(DeviceConfig {
        device: config.device.parse().map_err(|error| wrong("device", &error))?,
        precision: config.precision.parse().map_err(|error| wrong("precision", &error))?,
        threads: config.threads,
        batch_max: config.batch_max.unwrap_or(0),
    })
}
