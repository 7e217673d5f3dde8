//! Golden vectors: crops with the logits that the weights gave where the bundle was written.

use std::collections::BTreeMap;

use forensics::{CROP_SIDE, CropBatch, Precision};
use tch::{Device, Kind, TchError, Tensor};

use crate::shim::InferenceMode;
use crate::tensor_file::TensorFile;
use crate::two_stream::{Fusion, Network, Phase, TwoStreamWeights};

/// Inputs and what the network as published, in f32, says about them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Golden {
    pub(crate) inputs: CropBatch,
    /// Authentic, forged; one pair for each input.
    pub(crate) logits: Vec<[f32; 2]>,
}

/// Crops that a golden file holds at most: each costs every start its time.
const INPUTS_MAX: usize = 16;
/// f32: ten times what reordered sums differ by on the published weights' scale (1e-5 of the largest logit).
const TOLERANCE_F32: f32 = 1e-4;
/// bf16: twice the worst of eight networks that were two steps from chance, whose scales are still wild (7e-2, measured
/// 2026-11-28); the trained ones that we ship stay below 3e-2, and the bound on probabilities is parity's. Other arithmetic, or other weights,
/// differ by as much as the logits are large.
const TOLERANCE_BF16: f32 = 1.5e-1;

impl Golden {
    /// What `weights` say about `inputs`.
    pub(crate) fn compute(
        weights: &TwoStreamWeights,
        fusion: Fusion,
        inputs: &CropBatch,
    ) -> Result<Self, TchError> {
        let _inference = InferenceMode::enter();
        let pixels = pixels_of(inputs)?.f_permute([0, 3, 1, 2])?.f_contiguous()?;
        let images = pixels.f_to_kind(Kind::Float)?.f_mul_scalar(2.0 / 255.0)?.f_sub_scalar(1.0)?;
        let logits = Network::new(weights, fusion)?.forward(&images, Phase::Evaluate)?.logits;
        Ok(Self { inputs: inputs.clone(), logits: pairs_of(&logits)? })
    }

    /// Whether `found` are these logits, within what `precision` allows; if not, the first that is not.
    pub(crate) fn check(&self, found: &[[f32; 2]], precision: Precision) -> Result<(), String> {
        let tolerance = if precision == Precision::Bf16 { TOLERANCE_BF16 } else { TOLERANCE_F32 };
        if found.len() != self.logits.len() {
            return Err(format!("{} outputs for {} golden inputs", found.len(), self.logits.len()));
        }
        let largest = self.logits.iter().flatten().fold(1f32, |largest, logit| largest.max(logit.abs()));
        for (index, (found, golden)) in found.iter().zip(&self.logits).enumerate() {
            let close = |class: usize| (found[class] - golden[class]).abs() <= tolerance * largest;
            if !(close(0) && close(1)) {
                return Err(format!("golden input {index} gives logits {found:?}, must be {golden:?}"));
            }
        }
        Ok(())
    }

    pub(crate) fn from_file(file: &TensorFile) -> Result<Self, String> {
        let tensor = |name: &str| file.tensors.get(name).ok_or_else(|| format!("no tensor {name:?}"));
        let (inputs, logits) = (tensor("inputs")?, tensor("logits")?);
        let side = CROP_SIDE as i64;
        let count = inputs.size().first().copied().unwrap_or(0);
        if !(1..=INPUTS_MAX as i64).contains(&count)
            || inputs.size() != [count, side, side, 3]
            || inputs.kind() != Kind::Uint8
        {
            return Err(format!(
                "inputs are {:?} {:?}, not [1 to {INPUTS_MAX}, {side}, {side}, 3] Uint8",
                inputs.size(),
                inputs.kind()
            ));
        }
        if logits.size() != [count, 2] || logits.kind() != Kind::Float {
            return Err(format!(
                "logits are {:?} {:?}, not [{count}, 2] Float",
                logits.size(),
                logits.kind()
            ));
        }
        let values: Vec<u8> =
            Vec::try_from(&inputs.flatten(0, -1)).map_err(|error: TchError| error.to_string())?;
        let mut batch = CropBatch::with_capacity(count as usize);
        if !values.chunks(values.len() / count as usize).all(|crop| batch.push(crop)) {
            return Err("inputs are no crops".to_owned());
        }
        let logits = pairs_of(logits).map_err(|error: TchError| error.to_string())?;
        if logits.iter().flatten().any(|logit| !logit.is_finite()) {
            return Err("golden logits are not finite".to_owned());
        }
        Ok(Self { inputs: batch, logits })
    }

    pub(crate) fn to_file(&self) -> Result<TensorFile, TchError> {
        let logits = Tensor::f_from_slice(self.logits.as_flattened())?.f_view([-1, 2])?;
        let tensors =
            BTreeMap::from([("inputs".to_owned(), pixels_of(&self.inputs)?), ("logits".to_owned(), logits)]);
        Ok(TensorFile { tensors, ..TensorFile::default() })
    }
}

/// Two crops that reach every part of the network: smooth waves with fine noise on them, as skin under a sensor.
pub(crate) fn patterns() -> CropBatch {
    let mut batch = CropBatch::with_capacity(2);
    for image in 0..2u32 {
        let mut state = 0x2545_f491u32 + image;
        let mut pixels = Vec::with_capacity(CROP_SIDE * CROP_SIDE * 3);
        for place in 0..CROP_SIDE * CROP_SIDE {
            let (x, y) = ((place % CROP_SIDE) as f32 / 256.0, (place / CROP_SIDE) as f32 / 256.0);
            for channel in 0..3u32 {
                // xorshift32 (Marsaglia, 2003): the same noise everywhere.
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                let noise = (state >> 27) as f32;
                let wave = ((3 + image + channel) as f32 * x).sin() * ((2 + channel) as f32 * y).cos();
                pixels.push((120.0 + 80.0 * wave + noise) as u8);
            }
        }
        let _fits = batch.push(&pixels);
    }
    batch
}

/// `[n, 256, 256, 3]` u8.
pub(crate) fn pixels_of(batch: &CropBatch) -> Result<Tensor, TchError> {
    let side = CROP_SIDE as i64;
    Tensor::f_from_data_size(batch.pixels(), &[batch.count() as i64, side, side, 3], Kind::Uint8)
}

/// `[n, 2]` f32, from whatever device.
pub(crate) fn pairs_of(logits: &Tensor) -> Result<Vec<[f32; 2]>, TchError> {
    let flat = logits.f_to_device_(Device::Cpu, Kind::Float, false, false)?.f_flatten(0, -1)?;
    let values = Vec::<f32>::try_from(&flat)?;
    Ok(values.as_chunks::<2>().0.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_by_more_than_the_precision_explains_is_named() {
        let golden = Golden { inputs: patterns(), logits: vec![[1.0, -2.0], [30.0, -50.0]] };
        let off = |share: f32| [[1.0, -2.0], [30.0, -50.0 * (1.0 - share)]];
        assert_eq!(golden.check(&off(0.07), Precision::Bf16), Ok(()));
        assert_eq!(golden.check(&off(5e-5), Precision::F32), Ok(()));
        for (share, precision) in [(0.2, Precision::Bf16), (2e-4, Precision::F32)] {
            let refused = golden.check(&off(share), precision).unwrap_err();
            assert!(refused.contains("golden input 1"), "{refused}");
        }
        assert!(golden.check(&off(0.0)[..1], Precision::F32).is_err(), "one is missing");
    }
}
