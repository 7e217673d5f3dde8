//! A network on its device: crops in, logits out, in pieces that suit the device.

use forensics::{CropBatch, DetectorError, Logit};
use tch::Device;

use super::architecture::Fusion;
use super::network::{Network, NetworkOutput};
use super::weights::TwoStreamWeights;
use crate::bundle::pairs_of;
use crate::device::{Placement, detector_error};
use crate::shim::InferenceMode;
use crate::upload::Upload;

/// The inference form of a network on one device, and the crops' way there. It knows no bundle: [`super::TwoStream`] is
/// what serves; a trainer looks at weights that have none yet.
pub struct PlacedNetwork {
    network: Network,
    device: Device,
    upload: Upload,
}

/// Crops that a CPU computes at a time at least. One image's largest maps stay in its cache, many images' do not; two
/// fill the vectors of the small maps better than one (measured 2026-11-24: 2.8 images a CPU-second in pieces of 2, 2.7 of
/// 1, 2.5 of 8).
const CPU_PIECE_MIN: usize = 2;
/// Crops that a GPU gets at a time: enough to fill it, and small beside a batch (chosen).
const CUDA_PIECE: usize = 64;

impl PlacedNetwork {
    /// Places `weights`, which are copied.
    pub fn new(
        weights: &TwoStreamWeights,
        fusion: Fusion,
        placement: Placement,
    ) -> Result<Self, DetectorError> {
        let Placement { device, kind } = placement;
        let prepare = || {
            let network = Network::new(weights, fusion)?.prepare(device, kind)?;
            Ok(Self { network, device, upload: Upload::new(device)? })
        };
        prepare().map_err(|error| detector_error(&error, 0))
    }

    /// One logit (forged minus authentic) a crop, in the batch's order.
    pub fn score(&mut self, batch: &CropBatch) -> Result<Vec<Logit>, DetectorError> {
        let outputs = self.forward(batch)?;
        logits(&outputs, batch.count())
    }

    /// Launches the batch in pieces. A GPU computes one piece while the next is packed and sent; nothing waits for it here.
    pub(super) fn forward(&mut self, batch: &CropBatch) -> Result<Vec<NetworkOutput>, DetectorError> {
        let _inference = InferenceMode::enter();
        let piece_max = if self.device == Device::Cpu { cpu_piece() } else { CUDA_PIECE };
        let mut outputs = Vec::new();
        for start in (0..batch.count()).step_by(piece_max) {
            let piece = batch.slice(start, piece_max);
            let output = self.upload.send(&piece).and_then(|pixels| self.network.forward_pixels(&pixels));
            outputs.push(output.map_err(|error| detector_error(&error, batch.count()))?);
        }
        Ok(outputs)
    }
}

/// Authentic and forged, of each of `batch` crops.
pub(super) fn pairs(outputs: &[NetworkOutput], batch: usize) -> Result<Vec<[f32; 2]>, DetectorError> {
    let mut pairs = Vec::with_capacity(batch);
    for output in outputs {
        pairs.extend(pairs_of(&output.logits).map_err(|error| detector_error(&error, batch))?);
    }
    Ok(pairs)
}

pub(super) fn logits(outputs: &[NetworkOutput], batch: usize) -> Result<Vec<Logit>, DetectorError> {
    let pairs = pairs(outputs, batch)?;
    let margins = pairs.iter().enumerate().map(|(item, [authentic, forged])| {
        Logit::new(forged - authentic).ok_or(DetectorError::NonFinite { item })
    });
    margins.collect()
}

/// Crops that this thread's CPU computes at a time: an image for each thread of an operation.
pub fn cpu_piece() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1).max(CPU_PIECE_MIN)
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use super::*;

    #[test]
    fn outputs_that_are_not_numbers_name_their_item() {
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
        let found = Tensor::from_slice(&[0.0f32, 1.0, f32::NAN, 0.0]).view([2, 2]);
        let output =
            NetworkOutput { logits: found, embedding: zeros(&[2, 8]), attention_map: zeros(&[2, 1, 1, 1]) };
        assert_eq!(logits(&[output], 2), Err(DetectorError::NonFinite { item: 1 }));
    }
}
