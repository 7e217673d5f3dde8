//! MTCNN (Zhang et al., *Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks*, 2016)
//! with the weights and the habits of facenet-pytorch 2.6.0: the same faces to within rounding.
//!
//! Three small networks in a cascade: P-Net looks at every place of a pyramid of shrunken frames, R-Net and O-Net look
//! again at what it proposes. The networks run on libtorch, channels last, many frames at a time; everything between
//! them (shrinking, suppression, boxes) is plain Rust on whole numbers and f32.

mod area;
mod boxes;
mod cascade;
mod networks;
#[cfg(test)]
mod tests;
mod weights;

use std::path::Path;

use forensics::{DetectedFace, DetectorError, Frame};

use crate::InferenceMode;
use crate::device::{DeviceConfig, detector_error};

pub use weights::{FaceWeightsError, SHA256, convert};

/// The face detector. One thread owns it.
pub struct Mtcnn {
    cascade: cascade::Cascade,
}

impl Mtcnn {
    /// Loads the weights that [`convert`] wrote; any other file is refused. It computes in f32 whatever the
    /// configured precision: its thresholds were chosen so.
    pub fn load(path: &Path, config: &DeviceConfig) -> Result<Self, FaceWeightsError> {
        let tensors = weights::load(path)?;
        let device = config.open()?.device;
        Ok(Self { cascade: cascade::Cascade::new(&tensors, device)? })
    }
}

impl forensics::FaceDetector for Mtcnn {
    fn name(&self) -> &str {
        "mtcnn-facenet-2.6.0"
    }

    fn batch_max(&self) -> usize {
        cascade::FRAMES_MAX
    }

    fn detect(&mut self, frames: &[&Frame]) -> Result<Vec<Vec<DetectedFace>>, DetectorError> {
        let _inference = InferenceMode::enter();
        let mut faces = vec![Vec::new(); frames.len()];
        for same_size in by_size(frames) {
            let batch: Vec<&Frame> = same_size.iter().map(|&index| frames[index]).collect();
            let found = self.cascade.detect(&batch).map_err(|error| detector_error(&error, batch.len()))?;
            for (index, found) in same_size.into_iter().zip(found) {
                faces[index] = found;
            }
        }
        Ok(faces)
    }
}

/// Indices of the frames, grouped so that a group can share one pyramid and stays below [`cascade::FRAMES_MAX`].
fn by_size(frames: &[&Frame]) -> Vec<Vec<usize>> {
    let size = |index: usize| (frames[index].width(), frames[index].height());
    let mut order: Vec<usize> = (0..frames.len()).collect();
    order.sort_by_key(|&index| size(index));
    let groups = order.chunk_by(|&one, &other| size(one) == size(other));
    groups.flat_map(|group| group.chunks(cascade::FRAMES_MAX)).map(<[usize]>::to_vec).collect()
}
