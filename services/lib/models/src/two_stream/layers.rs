//! Convolutions and normalisations: the leaves of the network, in a trainable and in an inference form.
//!
//! As built, a [`Conv`] is a plain convolution followed by its normalisation, as published. [`Conv::prepare`] turns it
//! into its inference form: normalisation folded into weight and bias, channels last, and on a CPU one oneDNN call
//! for convolution, bias, residual sum and ReLU. Whoever calls `forward` does not see the difference.

use tch::{Device, Kind, TchError, Tensor};

use super::scope::{Role, Scope};
use crate::shim;

/// ε of every batch normalisation in the published code (PyTorch's default).
const EPSILON: f64 = 1e-5;
/// Momentum of the running statistics (PyTorch's default).
const MOMENTUM: f64 = 0.1;

/// Whether normalisations use the statistics of the batch (and update theirs) or their running statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Batch statistics, dropout: learning.
    Train,
    /// Running statistics: the output of an image does not depend on its neighbours in the batch.
    Evaluate,
}

/// What follows a convolution and its normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    Relu,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) stride: i64,
    pub(crate) padding: i64,
    pub(crate) groups: i64,
}

/// What the inference form is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) device: Device,
    pub(crate) kind: Kind,
    /// Side of the maps that the module reads. oneDNN's layout of a weight depends on it: packed for another size, a weight
    /// is laid out anew in every call (0.9 s for the fusion's 1×1 convolution alone, 2026-11-24).
    pub(crate) side: i64,
}

pub(crate) struct Norm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

pub(crate) struct Conv {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
    pub(crate) geometry: Geometry,
    norm: Option<Norm>,
    engine: Engine,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Engine {
    /// ATen's convolution, whichever library it picks; differentiable.
    Library,
    /// oneDNN with bias, sum and ReLU in the same call, on weights in its own layout. CPU, inference only.
    Fused,
}

impl Target {
    pub(crate) fn at(self, side: i64) -> Self {
        Self { side, ..self }
    }

    /// A tensor's values there, without gradients.
    pub(crate) fn take(self, tensor: &Tensor) -> Result<Tensor, TchError> {
        tensor.f_detach()?.f_to_device_(self.device, self.kind, false, false)
    }
}

impl Geometry {
    pub(crate) const POINT: Geometry = Geometry { stride: 1, padding: 0, groups: 1 };
}

impl Norm {
    pub(crate) fn new(scope: &Scope<'_>, channels: i64) -> Result<Self, TchError> {
        let norm = Self {
            weight: scope.parameter("weight", &[channels])?,
            bias: scope.parameter("bias", &[channels])?,
            running_mean: scope.tensor("running_mean", &[channels], Role::Statistic)?,
            running_var: scope.tensor("running_var", &[channels], Role::Statistic)?,
        };
        // Part of the state dict, without effect on any output: nothing here counts batches.
        let _unused = scope.tensor("num_batches_tracked", &[], Role::Counter)?;
        Ok(norm)
    }

    pub(crate) fn forward(&self, x: &Tensor, phase: Phase) -> Result<Tensor, TchError> {
        x.f_batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            phase == Phase::Train,
            MOMENTUM,
            EPSILON,
            true,
        )
    }

    /// The normalisation with running statistics as `x·scale + shift`, computed in f64.
    fn as_affine(&self) -> Result<(Tensor, Tensor), TchError> {
        let deviation = self.running_var.f_to_kind(Kind::Double)?.f_add_scalar(EPSILON)?.f_sqrt()?;
        let scale = self.weight.f_to_kind(Kind::Double)?.f_div(&deviation)?;
        let shift = self.bias.f_sub(&self.running_mean.f_to_kind(Kind::Double)?.f_mul(&scale)?)?;
        Ok((scale, shift))
    }

    pub(crate) fn prepare(&self, target: Target) -> Result<Self, TchError> {
        let (scale, shift) = self.as_affine()?;
        // A normalisation whose mean is 0 and whose variance is 1 − ε is the affine map itself.
        let channels = scale.size();
        Ok(Self {
            running_mean: target.take(&Tensor::f_zeros(&channels, (Kind::Double, Device::Cpu))?)?,
            running_var: target.take(&Tensor::f_full(
                &channels,
                1.0 - EPSILON,
                (Kind::Double, Device::Cpu),
            )?)?,
            weight: target.take(&scale)?,
            bias: target.take(&shift)?,
        })
    }
}

impl Conv {
    /// A dense convolution of `[inputs, outputs, kernel side]` without bias, named `weight`.
    pub(crate) fn new(
        scope: &Scope<'_>,
        [inputs, outputs, side]: [i64; 3],
        geometry: Geometry,
    ) -> Result<Self, TchError> {
        let weight = scope.parameter("weight", &[outputs, inputs / geometry.groups, side, side])?;
        Ok(Self::bare(weight, geometry))
    }

    /// The same with a bias.
    pub(crate) fn biased(scope: &Scope<'_>, size: [i64; 3], geometry: Geometry) -> Result<Self, TchError> {
        let bias = Some(scope.parameter("bias", &[size[1]])?);
        Ok(Self { bias, ..Self::new(scope, size, geometry)? })
    }

    /// Every channel on its own, 3×3, size kept.
    pub(crate) fn depthwise(scope: &Scope<'_>, channels: i64) -> Result<Self, TchError> {
        Self::new(scope, [channels, channels, 3], Geometry { stride: 1, padding: 1, groups: channels })
    }

    pub(crate) fn bare(weight: Tensor, geometry: Geometry) -> Self {
        Self { weight, bias: None, geometry, norm: None, engine: Engine::Library }
    }

    /// Followed by the normalisation that `scope` names.
    pub(crate) fn normalised(self, scope: &Scope<'_>, channels: i64) -> Result<Self, TchError> {
        Ok(Self { norm: Some(Norm::new(scope, channels)?), ..self })
    }

    pub(crate) fn forward(&self, x: &Tensor, then: Then, phase: Phase) -> Result<Tensor, TchError> {
        if self.engine == Engine::Fused {
            return shim::convolve(x, &self.fused(then));
        }
        let mut y = self.convolve_and_normalise(x, phase)?;
        match then {
            Then::Nothing => Ok(y),
            Then::Relu => y.f_relu_(),
        }
    }

    /// `forward(x) + sum`. Takes `sum` because the inference form writes into it.
    pub(crate) fn forward_onto(&self, mut sum: Tensor, x: &Tensor, phase: Phase) -> Result<Tensor, TchError> {
        if self.engine == Engine::Fused {
            shim::convolve_onto(&mut sum, x, &self.fused(Then::Nothing))?;
            return Ok(sum);
        }
        self.convolve_and_normalise(x, phase)?.f_add_(&sum)
    }

    fn convolve_and_normalise(&self, x: &Tensor, phase: Phase) -> Result<Tensor, TchError> {
        let Geometry { stride, padding, groups } = self.geometry;
        let y = x.f_conv2d(
            &self.weight,
            self.bias.as_ref(),
            [stride, stride],
            [padding, padding],
            [1, 1],
            groups,
        )?;
        match &self.norm {
            Some(norm) => norm.forward(&y, phase),
            None => Ok(y),
        }
    }

    fn fused(&self, then: Then) -> shim::Convolution<'_> {
        let Geometry { stride, padding, groups } = self.geometry;
        let relu = then == Then::Relu;
        shim::Convolution { weight: &self.weight, bias: self.bias.as_ref(), stride, padding, groups, relu }
    }

    /// Weight and bias in f64 with the normalisation folded in; the form in which modules merge convolutions.
    pub(crate) fn folded(&self) -> Result<(Tensor, Option<Tensor>), TchError> {
        let weight = self.weight.f_detach()?.f_to_kind(Kind::Double)?;
        let bias = match &self.bias {
            Some(bias) => Some(bias.f_detach()?.f_to_kind(Kind::Double)?),
            None => None,
        };
        let Some(norm) = &self.norm else { return Ok((weight, bias)) };
        let (scale, shift) = norm.as_affine()?;
        let weight = weight.f_mul(&scale.f_view([-1, 1, 1, 1])?)?;
        let bias = match bias {
            Some(bias) => bias.f_mul(&scale)?.f_add(&shift)?,
            None => shift,
        };
        Ok((weight, Some(bias)))
    }

    /// The inference form on `target`.
    pub(crate) fn prepare(&self, target: Target) -> Result<Self, TchError> {
        let (weight, bias) = self.folded()?;
        Self::prepared(&weight, bias.as_ref(), self.geometry, target)
    }

    /// The inference form of a weight and bias that a module merged itself.
    pub(crate) fn prepared(
        weight: &Tensor,
        bias: Option<&Tensor>,
        geometry: Geometry,
        target: Target,
    ) -> Result<Self, TchError> {
        let weight = shim::channels_last(&target.take(weight)?)?;
        let bias = bias.map(|bias| target.take(bias)).transpose()?;
        let mut conv = Self { weight, bias, geometry, norm: None, engine: Engine::Library };
        if target.device == Device::Cpu {
            conv.engine = Engine::Fused;
            conv.weight = shim::pack_weight(&conv.fused(Then::Nothing), target.side)?;
        }
        Ok(conv)
    }
}
