//! Dual cross-modal attention: each stream looks at the other, place by place on the 16 × 16 map.

use tch::{Device, Kind, TchError, Tensor};

use super::architecture::{Architecture, PLACES};
use super::layers::{Conv, Geometry, Phase, Target, Then};
use super::scope::Scope;

/// `(x, y) → (γ1·value2(y)·A_yx + x, γ2·value1(x)·A_xy + y)`, as published.
pub(crate) struct CrossAttention {
    key_x: Conv,
    key_y: Conv,
    /// One module for both keys.
    key_shared: Conv,
    value_x: Conv,
    value_y: Conv,
    look_x: Look,
    look_y: Look,
}

/// How one stream looks at the other: energies → where to look, and how much of what is seen is added.
struct Look {
    weight: Tensor,
    bias: Tensor,
    gamma: Tensor,
}

/// The same for inference: the shared key and γ are folded into their neighbours, and the value's convolution stands
/// behind the attention (its rows sum to one, so the bias passes through), where it adds onto the stream in one call.
pub(crate) struct PreparedCrossAttention {
    key_x: Key,
    key_y: Key,
    value_x: Conv,
    value_y: Conv,
    look_x: Look,
    look_y: Look,
}

/// A stream's keys for inference: both published convolutions as one matrix over the places.
struct Key {
    weight: Tensor,
    bias: Tensor,
}

/// Keys have an eighth of the channels.
const KEY_RATIO: i64 = 8;
/// Key channels are padded with zeros to a multiple of this for inference (91 → 96): whole registers and tensor-core
/// tiles; a zero adds nothing to a scalar product.
const KEY_MULTIPLE: i64 = 32;

impl CrossAttention {
    pub(crate) fn new(scope: &Scope<'_>, architecture: Architecture) -> Result<Self, TchError> {
        let channels = architecture.channels(728);
        let keys = channels / KEY_RATIO;
        let point = |name: &str, size| Conv::biased(&scope.at(name), size, Geometry::POINT);
        let look = |linear: &str, gamma: &str| -> Result<Look, TchError> {
            Ok(Look {
                weight: scope.at(linear).parameter("weight", &[PLACES, PLACES])?,
                bias: scope.at(linear).parameter("bias", &[PLACES])?,
                gamma: scope.parameter(gamma, &[1])?,
            })
        };
        Ok(Self {
            key_x: point("key_conv1", [channels, keys, 1])?,
            key_y: point("key_conv2", [channels, keys, 1])?,
            key_shared: point("key_conv_share", [keys, keys, 1])?,
            value_x: point("value_conv1", [channels, channels, 1])?,
            value_y: point("value_conv2", [channels, channels, 1])?,
            look_x: look("linear1", "gamma1")?,
            look_y: look("linear2", "gamma2")?,
        })
    }

    /// `x`, `y`: `[n, 728, 16, 16]`.
    pub(crate) fn forward(&self, x: Tensor, y: Tensor, phase: Phase) -> Result<(Tensor, Tensor), TchError> {
        let key = |conv: &Conv, stream: &Tensor| -> Result<Tensor, TchError> {
            let key = conv.forward(stream, Then::Nothing, phase)?;
            self.key_shared.forward(&key, Then::Nothing, phase)?.f_flatten(2, 3)
        };
        // No 1/√d: the published code has none.
        let energy = key(&self.key_x, &x)?.f_transpose(1, 2)?.f_bmm(&key(&self.key_y, &y)?)?;
        let seen_by_x = self.look_x.places(&energy)?;
        let seen_by_y = self.look_y.places(&energy.f_transpose(1, 2)?)?;
        let add = |stream: Tensor, look: &Look, seen: &Tensor, value: Tensor| -> Result<Tensor, TchError> {
            let seen = value.f_flatten(2, 3)?.f_bmm(&seen.f_transpose(1, 2)?)?.f_view_as(&stream)?;
            stream.f_add(&seen.f_mul(&look.gamma)?)
        };
        let value_y = self.value_y.forward(&y, Then::Nothing, phase)?;
        let value_x = self.value_x.forward(&x, Then::Nothing, phase)?;
        Ok((add(x, &self.look_x, &seen_by_x, value_y)?, add(y, &self.look_y, &seen_by_y, value_x)?))
    }

    pub(crate) fn prepare(&self, target: Target) -> Result<PreparedCrossAttention, TchError> {
        let target = target.at(16);
        let looks = Target { kind: looking_kind(target), ..target };
        let key = |conv: &Conv| -> Result<Key, TchError> {
            let (weight, bias) = joined(conv, &self.key_shared)?;
            let lacking = -weight.size()[0] & (KEY_MULTIPLE - 1);
            let weight = looks.take(&weight.f_constant_pad_nd([0, 0, 0, lacking])?)?;
            Ok(Key { weight, bias: looks.take(&bias.f_constant_pad_nd([0, lacking])?)? })
        };
        let value = |conv: &Conv, look: &Look| -> Result<Conv, TchError> {
            let (weight, bias) = conv.folded()?;
            let gamma = look.gamma.f_detach()?.f_to_kind(Kind::Double)?;
            let bias = bias.map(|bias| bias.f_mul(&gamma)).transpose()?;
            Conv::prepared(&weight.f_mul(&gamma)?, bias.as_ref(), Geometry::POINT, target)
        };
        Ok(PreparedCrossAttention {
            key_x: key(&self.key_x)?,
            key_y: key(&self.key_y)?,
            value_x: value(&self.value_x, &self.look_y)?,
            value_y: value(&self.value_y, &self.look_x)?,
            look_x: self.look_x.prepare(looks)?,
            look_y: self.look_y.prepare(looks)?,
        })
    }
}

impl PreparedCrossAttention {
    /// `x`, `y`: `[n, 728, 16, 16]`, channels last.
    pub(crate) fn forward(&self, x: Tensor, y: Tensor) -> Result<(Tensor, Tensor), TchError> {
        let phase = Phase::Evaluate;
        let (rows_x, rows_y) = (as_rows(&x)?, as_rows(&y)?);
        let energy = self.key_x.of(&rows_x)?.f_bmm(&self.key_y.of(&rows_y)?.f_transpose(1, 2)?)?;
        let by_x = self.look_x.places(&energy)?.f_to_kind(x.kind())?;
        let by_y = self.look_y.places(&energy.f_transpose(1, 2)?)?.f_to_kind(y.kind())?;
        let (seen_by_x, seen_by_y) = (by_x.f_bmm(&rows_y)?, by_y.f_bmm(&rows_x)?);
        let as_map = |rows: Tensor, like: &Tensor| -> Result<Tensor, TchError> {
            let [n, c, h, w] = like.size4()?.into();
            rows.f_view([n, h, w, c])?.f_permute([0, 3, 1, 2])
        };
        let seen_by_x = as_map(seen_by_x, &y)?;
        let seen_by_y = as_map(seen_by_y, &x)?;
        Ok((
            self.value_y.forward_onto(x, &seen_by_x, phase)?,
            self.value_x.forward_onto(y, &seen_by_y, phase)?,
        ))
    }
}

/// The arithmetic of the energies. They are large sums, without the usual 1/√d, and the softmax turns their absolute error
/// into a relative one: f64 takes a third off the largest error of the whole network (4.1e-5 → 2.8e-5 on the parity files,
/// 2026-11-24) for a hundredth of a CPU's time. Elsewhere, and in bf16, the target's own kind is what there is.
fn looking_kind(target: Target) -> Kind {
    if target.device == Device::Cpu && target.kind == Kind::Float { Kind::Double } else { target.kind }
}

impl Key {
    /// `[n, places, c]` → `[n, places, keys]`.
    fn of(&self, rows: &Tensor) -> Result<Tensor, TchError> {
        rows.f_to_kind(self.weight.kind())?.f_linear(&self.weight, Some(&self.bias))
    }
}

impl Look {
    /// `[n, places, places]` → weights that sum to one over the last axis.
    fn places(&self, energy: &Tensor) -> Result<Tensor, TchError> {
        energy.f_linear(&self.weight, Some(&self.bias))?.f_softmax(-1, None)
    }

    fn prepare(&self, target: Target) -> Result<Self, TchError> {
        Ok(Self {
            weight: target.take(&self.weight)?,
            bias: target.take(&self.bias)?,
            gamma: target.take(&self.gamma)?,
        })
    }
}

/// `[n, c, h, w]` channels last → `[n, h·w, c]`, without a copy.
fn as_rows(map: &Tensor) -> Result<Tensor, TchError> {
    map.f_permute([0, 2, 3, 1])?.f_flatten(1, 2)
}

/// Two 1×1 convolutions as one matrix and bias, in f64.
fn joined(first: &Conv, second: &Conv) -> Result<(Tensor, Tensor), TchError> {
    let matrix = |conv: &Conv| -> Result<(Tensor, Tensor), TchError> {
        let (weight, bias) = conv.folded()?;
        let weight = weight.f_flatten(1, -1)?;
        let bias = match bias {
            Some(bias) => bias,
            None => Tensor::f_zeros([weight.size()[0]], (Kind::Double, Device::Cpu))?,
        };
        Ok((weight, bias))
    };
    let (first_weight, first_bias) = matrix(first)?;
    let (second_weight, second_bias) = matrix(second)?;
    let weight = second_weight.f_matmul(&first_weight)?;
    let bias = second_weight.f_mv(&first_bias)?.f_add(&second_bias)?;
    Ok((weight, bias))
}
