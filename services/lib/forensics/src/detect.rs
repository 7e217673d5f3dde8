//! The two seams: behind each stand the real engine (libtorch) and a scripted one.

use crate::face::DetectedFace;
use crate::frame::{CropBatch, Frame};
use crate::model::{Calibration, ModelIdentity, Preprocessing};
use crate::policy::Thresholds;
use crate::score::Logit;

/// Why an engine gave no answer, by what the caller does next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DetectorError {
    /// The batch does not fit: halve it and try again.
    #[error("device out of memory with a batch of {batch}: {detail}")]
    OutOfMemory {
        /// Crops or frames in the batch that did not fit.
        batch: usize,
        /// The engine's own words.
        detail: String,
    },
    /// The outputs are not numbers: once more alone, then FAILED(INFERENCE_INVALID).
    #[error("non-finite output for item {item}")]
    NonFinite {
        /// The item's index in the batch.
        item: usize,
    },
    /// The device is broken: leave the group and exit.
    #[error("device fault: {0}")]
    Device(String),
    /// The self-test's scores are not the golden ones: never ready.
    #[error("self-test failed: {0}")]
    SelfTest(String),
}

/// Scores face crops. One thread owns it.
pub trait ForgeryDetector: Send {
    /// The model, as verdicts name it.
    fn identity(&self) -> &ModelIdentity;

    /// How its input must be made.
    fn preprocessing(&self) -> &Preprocessing;

    /// What its logits mean.
    fn calibration(&self) -> Calibration;

    /// The bundle's thresholds; `None` where it has none, and then every verdict abstains.
    fn thresholds(&self) -> Option<Thresholds>;

    /// The largest batch that pays on this device.
    fn batch_max(&self) -> usize;

    /// One logit a crop, in the batch's order.
    fn score(&mut self, batch: &CropBatch) -> Result<Vec<Logit>, DetectorError>;

    /// Scores the golden inputs and compares.
    fn self_test(&mut self) -> Result<(), DetectorError>;
}

/// Finds faces in frames. One thread owns it.
pub trait FaceDetector: Send {
    /// Name and version, part of the preprocessing's name, such as `mtcnn-facenet-2.6.0`.
    fn name(&self) -> &str;

    /// The most frames a call takes with profit.
    fn batch_max(&self) -> usize;

    /// The faces of each frame, most confident first, in the frames' order.
    fn detect(&mut self, frames: &[&Frame]) -> Result<Vec<Vec<DetectedFace>>, DetectorError>;
}
