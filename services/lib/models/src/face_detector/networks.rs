//! The three networks. Inputs are f32 `[n, height, width, 3]`, RGB, in (−1, 1), in row-major order, which libtorch sees as
//! channels last; outputs come back as rows of numbers.

use std::collections::BTreeMap;

use tch::{Device, Kind, TchError, Tensor};

use super::area::Size;

type Weights = BTreeMap<String, Tensor>;

/// Proposes boxes at every place of a shrunken frame: cells of 12 × 12 pixels, two pixels apart.
pub(super) struct PNet {
    layers: [Layer; 3],
    /// Two logits (no face, face) and four shifts of the edges, side by side.
    heads: Affine,
}

/// Refines proposals of 24 × 24 pixels.
pub(super) struct RNet {
    layers: [Layer; 3],
    dense: Affine,
    slope: Tensor,
    /// As [`PNet::heads`].
    heads: Affine,
}

/// Decides on 48 × 48 pixels and finds the landmarks.
pub(super) struct ONet {
    layers: [Layer; 4],
    dense: Affine,
    slope: Tensor,
    /// As [`PNet::heads`], then x of the five landmarks, then y, in widths and heights.
    heads: Affine,
}

/// Weight and bias of a convolution or a dense layer.
struct Affine {
    weight: Tensor,
    bias: Tensor,
}

/// A convolution without padding, PReLU, and then the maximum over windows of `pool`, two apart (a cut window at the
/// edge counts).
struct Layer {
    affine: Affine,
    slope: Tensor,
    pool: Option<i64>,
}

/// P-Net's answer for one frame: one row of six numbers for each place, row by row.
pub(super) const PNET_NUMBERS: usize = 6;
/// Numbers in an answer of R-Net.
pub(super) const RNET_NUMBERS: usize = 6;
/// Numbers in an answer of O-Net.
pub(super) const ONET_NUMBERS: usize = 16;
/// Side of R-Net's input.
pub(super) const RNET_SIDE: usize = 24;
/// Side of O-Net's input.
pub(super) const ONET_SIDE: usize = 48;

impl PNet {
    pub(super) fn new(weights: &Weights, device: Device) -> Result<Self, TchError> {
        let net = Net { weights, name: "pnet", device };
        Ok(Self {
            layers: [net.layer(1, Some(2))?, net.layer(2, None)?, net.layer(3, None)?],
            heads: net.joined(&["conv4_1", "conv4_2"])?,
        })
    }

    /// Height and width of the answer's grid.
    pub(super) fn places(size: Size) -> Size {
        // 3×3 convolution, 2×2 maximum (a cut window counts), two 3×3 convolutions.
        let places = |side: usize| (side - 2).div_ceil(2) - 4;
        Size { height: places(size.height), width: places(size.width) }
    }

    /// For each frame of `input`, [`PNET_NUMBERS`] for each place.
    pub(super) fn run(&self, input: &[f32], size: Size) -> Result<Vec<f32>, TchError> {
        let mut x = images(input, size, self.heads.weight.device())?;
        for layer in &self.layers {
            x = layer.run(&x)?;
        }
        numbers(&self.heads.convolve(&x)?.f_permute([0, 2, 3, 1])?)
    }
}

impl RNet {
    pub(super) fn new(weights: &Weights, device: Device) -> Result<Self, TchError> {
        let net = Net { weights, name: "rnet", device };
        Ok(Self {
            layers: [net.layer(1, Some(3))?, net.layer(2, Some(3))?, net.layer(3, None)?],
            dense: net.dense("dense4", [64, 3])?,
            slope: net.tensor("prelu4.weight")?,
            heads: net.joined(&["dense5_1", "dense5_2"])?,
        })
    }

    /// [`RNET_NUMBERS`] for each crop.
    pub(super) fn run(&self, crops: &[f32]) -> Result<Vec<f32>, TchError> {
        decide(crops, RNET_SIDE, &self.layers, [&self.dense, &self.heads], &self.slope)
    }
}

impl ONet {
    pub(super) fn new(weights: &Weights, device: Device) -> Result<Self, TchError> {
        let net = Net { weights, name: "onet", device };
        Ok(Self {
            layers: [
                net.layer(1, Some(3))?,
                net.layer(2, Some(3))?,
                net.layer(3, Some(2))?,
                net.layer(4, None)?,
            ],
            dense: net.dense("dense5", [128, 3])?,
            slope: net.tensor("prelu5.weight")?,
            heads: net.joined(&["dense6_1", "dense6_2", "dense6_3"])?,
        })
    }

    /// [`ONET_NUMBERS`] for each crop.
    pub(super) fn run(&self, crops: &[f32]) -> Result<Vec<f32>, TchError> {
        decide(crops, ONET_SIDE, &self.layers, [&self.dense, &self.heads], &self.slope)
    }
}

/// The probability of a face from the two logits that begin an answer.
pub(super) fn probability(answer: &[f32]) -> f32 {
    let most = answer[0].max(answer[1]);
    let (none, face) = ((answer[0] - most).exp(), (answer[1] - most).exp());
    face / (none + face)
}

/// What R-Net and O-Net have in common: convolutions, one dense layer, the heads.
fn decide(
    crops: &[f32],
    side: usize,
    layers: &[Layer],
    [dense, heads]: [&Affine; 2],
    slope: &Tensor,
) -> Result<Vec<f32>, TchError> {
    let mut x = images(crops, Size { height: side, width: side }, heads.weight.device())?;
    for layer in layers {
        x = layer.run(&x)?;
    }
    let flat = x.f_permute([0, 2, 3, 1])?.f_flatten(1, 3)?;
    let features = flat.f_linear(&dense.weight, Some(&dense.bias))?.f_prelu(slope)?;
    numbers(&features.f_linear(&heads.weight, Some(&heads.bias))?)
}

fn images(input: &[f32], size: Size, device: Device) -> Result<Tensor, TchError> {
    let shape = [-1, size.height as i64, size.width as i64, 3];
    Tensor::f_from_slice(input)?.f_view(shape)?.f_to_device(device)?.f_permute([0, 3, 1, 2])
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>, TchError> {
    let tensor = tensor.f_contiguous()?.f_to_device(Device::Cpu)?;
    let mut numbers = vec![0.0; tensor.numel()];
    tensor.f_copy_data(&mut numbers, tensor.numel())?;
    Ok(numbers)
}

impl Affine {
    fn convolve(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_conv2d(&self.weight, Some(&self.bias), 1, 0, 1, 1)
    }
}

impl Layer {
    fn run(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let x = self.affine.convolve(x)?.f_prelu(&self.slope)?;
        match self.pool {
            Some(side) => x.f_max_pool2d(side, 2, 0, 1, true),
            None => Ok(x),
        }
    }
}

/// One network's part of the weights.
struct Net<'a> {
    weights: &'a Weights,
    name: &'a str,
    device: Device,
}

impl Net<'_> {
    fn tensor(&self, name: &str) -> Result<Tensor, TchError> {
        let name = format!("{}.{name}", self.name);
        let tensor = self.weights.get(&name).ok_or_else(|| TchError::Convert(format!("no tensor {name}")))?;
        tensor.f_to_device(self.device)?.f_to_kind(Kind::Float)
    }

    fn affine(&self, name: &str) -> Result<Affine, TchError> {
        Ok(Affine {
            weight: self.tensor(&format!("{name}.weight"))?,
            bias: self.tensor(&format!("{name}.bias"))?,
        })
    }

    fn layer(&self, number: u32, pool: Option<i64>) -> Result<Layer, TchError> {
        let slope = self.tensor(&format!("prelu{number}.weight"))?;
        Ok(Layer { affine: self.affine(&format!("conv{number}"))?, slope, pool })
    }

    /// Several heads as one layer.
    fn joined(&self, names: &[&str]) -> Result<Affine, TchError> {
        let heads: Result<Vec<Affine>, TchError> = names.iter().map(|name| self.affine(name)).collect();
        let heads = heads?;
        let weights: Vec<&Tensor> = heads.iter().map(|head| &head.weight).collect();
        let biases: Vec<&Tensor> = heads.iter().map(|head| &head.bias).collect();
        Ok(Affine { weight: Tensor::f_cat(&weights, 0)?, bias: Tensor::f_cat(&biases, 0)? })
    }

    /// A dense layer over `[channels, side, side]`. The published one reads columns, rows, channels (as Caffe's
    /// column-major pictures had it); ours reads rows, columns, channels, as they lie in memory.
    fn dense(&self, name: &str, [channels, side]: [i64; 2]) -> Result<Affine, TchError> {
        let affine = self.affine(name)?;
        let weight =
            affine.weight.f_view([-1, side, side, channels])?.f_permute([0, 2, 1, 3])?.f_flatten(1, 3)?;
        Ok(Affine { weight: weight.f_contiguous()?, bias: affine.bias })
    }
}
