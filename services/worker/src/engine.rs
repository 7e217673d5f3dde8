//! Which engines judge: the choice that the configuration makes.

#[cfg(feature = "torch")]
mod torch;
#[cfg(feature = "torch")]
use torch as network;

#[cfg(not(feature = "torch"))]
mod bare;
#[cfg(not(feature = "torch"))]
use bare as network;

use forensics::scripted::{self, ScriptedFaceDetector, ScriptedForgeryDetector};
use forensics::{FaceDetector, ForgeryDetector};
use ops::Exit;
use ops::config::{ConfigError, Problems};

use crate::config::SettingsEngine;

/// Loads a forgery detector on the thread that will own it.
pub type ForgeryFactory = Box<dyn FnOnce() -> Result<Box<dyn ForgeryDetector>, Exit> + Send>;

/// Loads a face detector on the thread that will own it.
pub type FaceFactory = Box<dyn FnOnce() -> Result<Box<dyn FaceDetector>, Exit> + Send>;

/// Crops in one batch of the scripted detector. Chosen: what a GPU's batch looks like, in memory a CPU has.
const SCRIPTED_BATCH_MAX: usize = 32;

/// The two engines of a worker.
pub struct Engines {
    /// Judges crops.
    pub forgery: ForgeryFactory,
    /// Finds faces.
    pub faces: FaceFactory,
}

/// Checked choice of engines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// A bundle's folder, `seeded:full`, `seeded:mini`, or `scripted`.
    pub model: String,
    /// The file of the face detector's converted weights, or `scripted`.
    pub faces: String,
    /// `auto`, `cpu`, or `cuda:N`.
    pub device: String,
    /// `auto`, `f32` or `bf16`.
    pub precision: String,
    /// Threads of one operation on a CPU; 0 takes one for each core.
    pub threads: usize,
    /// Crops in one batch at most; `None`: what the engine found to pay.
    pub batch_max: Option<usize>,
}

impl SettingsEngine {
    /// The choice of engines in the configuration file, checked.
    pub fn check(&self) -> Result<EngineConfig, ConfigError> {
        let mut problems = Problems::default();
        problems.require(
            !self.model.is_empty(),
            "worker.engine.model",
            "is required: a bundle's folder, seeded:full, seeded:mini or scripted",
        );
        problems.require(
            !self.faces.is_empty(),
            "worker.engine.faces",
            "is required: the file of the face detector's weights, or scripted",
        );
        let cuda = |index: &str| index.parse::<u8>().is_ok();
        let device_ok =
            matches!(&*self.device, "auto" | "cpu") || self.device.strip_prefix("cuda:").is_some_and(cuda);
        problems.require(device_ok, "worker.engine.device", "must be auto, cpu or cuda:N");
        problems.require(
            matches!(&*self.precision, "auto" | "f32" | "bf16"),
            "worker.engine.precision",
            "must be auto, f32 or bf16",
        );
        // 4,096 crops are 768 MiB, twice.
        problems.require(self.batch_max <= 4_096, "worker.engine.batch_max", "must be at most 4096");
        problems.finish(EngineConfig {
            model: self.model.clone(),
            faces: self.faces.clone(),
            device: self.device.clone(),
            precision: self.precision.clone(),
            threads: self.threads,
            batch_max: (self.batch_max > 0).then_some(self.batch_max),
        })
    }
}

/// Call it first in `main`: what the engines need from their process before anything else.
pub fn prepare_process() {
    network::prepare_process();
}

/// The engines of this choice. They are loaded later, each on its own thread.
pub fn choose(config: &EngineConfig) -> Result<Engines, Exit> {
    Ok(Engines { forgery: forgery(config)?, faces: faces(config)? })
}

fn forgery(config: &EngineConfig) -> Result<ForgeryFactory, Exit> {
    if config.model == scripted::NAME {
        let batch_max = config.batch_max.unwrap_or(SCRIPTED_BATCH_MAX);
        return Ok(Box::new(move || Ok(Box::new(ScriptedForgeryDetector::new(batch_max)))));
    }
    network::forgery(config)
}

fn faces(config: &EngineConfig) -> Result<FaceFactory, Exit> {
    if config.faces == scripted::NAME {
        return Ok(Box::new(|| Ok(Box::new(ScriptedFaceDetector))));
    }
    network::faces(config)
}
