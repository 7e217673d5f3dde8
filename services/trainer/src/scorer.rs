//! The network as it is served, for looking at it while it learns.

use anyhow::Result;
use forensics::CROP_SIDE;
use models::two_stream::{Network, cpu_piece};
use models::{Fusion, InferenceMode, TwoStreamWeights};
use tch::{Device, Kind, Tensor};

use crate::samples::Judge;

/// Scores crops with given weights.
pub(crate) struct Scorer {
    network: Network,
    device: Device,
}

/// Crops that a GPU gets at a time.
const CUDA_PIECE: usize = 64;

impl Scorer {
    pub(crate) fn new(weights: &TwoStreamWeights, device: Device) -> Result<Self> {
        let network = Network::new(weights, Fusion::Official)?.prepare(device, Kind::Float)?;
        Ok(Self { network, device })
    }

    /// Crops that it likes to get at a time.
    pub(crate) fn piece(&self) -> usize {
        if self.device == Device::Cpu { cpu_piece() } else { CUDA_PIECE }
    }
}

impl Judge for Scorer {
    fn score(&mut self, crops: &[Vec<u8>]) -> Result<Vec<f32>> {
        let _inference = InferenceMode::enter();
        let side = CROP_SIDE as i64;
        let mut logits = Vec::with_capacity(crops.len());
        for piece in crops.chunks(self.piece()) {
            let pixels =
                Tensor::f_from_data_size(&piece.concat(), &[piece.len() as i64, side, side, 3], Kind::Uint8)?;
            let output = self.network.forward_pixels(&pixels.f_to_device(self.device)?)?;
            let pairs: Vec<f32> = Vec::try_from(output.logits.f_to_device(Device::Cpu)?.f_flatten(0, -1)?)?;
            logits.extend(pairs.as_chunks::<2>().0.iter().map(|[authentic, forged]| forged - authentic));
        }
        Ok(logits)
    }
}
