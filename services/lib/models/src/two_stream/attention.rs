//! Where to look (pixel attention, from the noise) and what to listen to (channel attention, on the fused features).

use tch::{TchError, Tensor};

use super::architecture::{Architecture, Fusion, INPUT_SIDE};
use super::layers::{Conv, Geometry, Phase, Target, Then};
use super::scope::Scope;
use super::srm::ImageFilter;

/// Noise `[n, 3, 256, 256]` → attention map `[n, 1, 125, 125]` in (0, 1).
pub(crate) struct PixelAttention {
    filter: ImageFilter,
    first: Conv,
    second: Conv,
    /// 7×7 over the channels' mean and maximum.
    pool: Conv,
}

/// Both streams' `[n, 2048, 8, 8]` → the fused features of the same shape.
pub(crate) struct FusionGate {
    mix: Conv,
    narrow: Conv,
    widen: Conv,
    fusion: Fusion,
}

/// Channels of the gate's hidden layer: a sixteenth.
const GATE_RATIO: i64 = 16;

impl PixelAttention {
    pub(crate) fn new(scope: &Scope<'_>, architecture: Architecture) -> Result<Self, TchError> {
        let (narrow, wide) = (architecture.channels(32), architecture.channels(64));
        let conv = scope.at("conv");
        let stride_2 = Geometry { stride: 2, ..Geometry::POINT };
        let same_7 = Geometry { padding: 3, ..Geometry::POINT };
        Ok(Self {
            filter: ImageFilter::new(&scope.at("srm"))?,
            first: Conv::new(&conv.at("0"), [3, narrow, 3], stride_2)?.normalised(&conv.at("1"), narrow)?,
            second: Conv::new(&conv.at("3"), [narrow, wide, 3], Geometry::POINT)?
                .normalised(&conv.at("4"), wide)?,
            pool: Conv::new(&scope.at("pa.conv"), [2, 1, 7], same_7)?,
        })
    }

    pub(crate) fn forward(&self, noise: &Tensor, phase: Phase) -> Result<Tensor, TchError> {
        // The noise went through these filters once already; the published code filters it again.
        let x = self.filter.forward(noise, phase)?.f_to_kind(self.first.weight.kind())?;
        let x = self.first.forward(&x, Then::Relu, phase)?;
        let x = self.second.forward(&x, Then::Relu, phase)?;
        let mean = x.f_mean_dim([1i64].as_slice(), true, None)?;
        let max = x.f_amax([1i64], true)?;
        self.pool.forward(&Tensor::f_cat(&[mean, max], 1)?, Then::Nothing, phase)?.f_sigmoid_()
    }

    pub(crate) fn prepare(&self, target: Target) -> Result<Self, TchError> {
        Ok(Self {
            filter: self.filter.prepare(target)?,
            first: self.first.prepare(target.at(INPUT_SIDE))?,
            second: self.second.prepare(target.at(127))?,
            pool: self.pool.prepare(target.at(125))?,
        })
    }
}

impl FusionGate {
    pub(crate) fn new(
        scope: &Scope<'_>,
        architecture: Architecture,
        fusion: Fusion,
    ) -> Result<Self, TchError> {
        let wide = architecture.channels(2048);
        let hidden = wide / GATE_RATIO;
        let mlp = scope.at("ca.sharedMLP");
        Ok(Self {
            mix: Conv::new(&scope.at("convblk.0"), [2 * wide, wide, 1], Geometry::POINT)?
                .normalised(&scope.at("convblk.1"), wide)?,
            narrow: Conv::new(&mlp.at("0"), [wide, hidden, 1], Geometry::POINT)?,
            widen: Conv::new(&mlp.at("2"), [hidden, wide, 1], Geometry::POINT)?,
            fusion,
        })
    }

    pub(crate) fn forward(&self, rgb: &Tensor, noise: &Tensor, phase: Phase) -> Result<Tensor, TchError> {
        let f = self.mix.forward(&Tensor::f_cat(&[rgb, noise], 1)?, Then::Relu, phase)?;
        let mean = f.f_mean_dim([2i64, 3].as_slice(), true, None)?;
        let max = f.f_amax([2i64, 3], true)?;
        let gate = self.mlp(&mean, phase)?.f_add(&self.mlp(&max, phase)?)?.f_sigmoid()?;
        match self.fusion {
            Fusion::Official => f.f_addcmul(&f, &gate),
            Fusion::DeepfakeBench => f.f_mul(&gate),
        }
    }

    fn mlp(&self, pooled: &Tensor, phase: Phase) -> Result<Tensor, TchError> {
        self.widen.forward(&self.narrow.forward(pooled, Then::Relu, phase)?, Then::Nothing, phase)
    }

    pub(crate) fn prepare(&self, target: Target) -> Result<Self, TchError> {
        Ok(Self {
            mix: self.mix.prepare(target.at(8))?,
            narrow: self.narrow.prepare(target.at(1))?,
            widen: self.widen.prepare(target.at(1))?,
            fusion: self.fusion,
        })
    }
}
