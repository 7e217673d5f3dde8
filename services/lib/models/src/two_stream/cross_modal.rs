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
    key_x: Conv,
    key_y: Conv,
    value_x: Conv,
    value_y: Conv,
    look_x: Look,
    look_y: Look,
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
        let key = |conv: &Conv| -> Result<Conv, TchError> {
            let (weight, bias) = joined(conv, &self.key_shared)?;
            let lacking = -weight.size()[0] & (KEY_MULTIPLE - 1);
            let weight = weight.f_constant_pad_nd([0, 0, 0, 0, 0, 0, 0, lacking])?;
            let bias = bias.f_constant_pad_nd([0, lacking])?;
            Conv::prepared(&weight, Some(&bias), Geometry::POINT, target)
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
            look_x: self.look_x.prepare(target)?,
            look_y: self.look_y.prepare(target)?,
        })
    }
}

impl PreparedCrossAttention {
    /// `x`, `y`: `[n, 728, 16, 16]`, channels last.
    pub(crate) fn forward(&self, x: Tensor, y: Tensor) -> Result<(Tensor, Tensor), TchError> {
        let phase = Phase::Evaluate;
        let key_x = as_rows(&self.key_x.forward(&x, Then::Nothing, phase)?)?;
        let key_y = as_rows(&self.key_y.forward(&y, Then::Nothing, phase)?)?;
        let energy = key_x.f_bmm(&key_y.f_transpose(1, 2)?)?;
        let seen_by_x = self.look_x.places(&energy)?.f_bmm(&as_rows(&y)?)?;
        let seen_by_y = self.look_y.places(&energy.f_transpose(1, 2)?)?.f_bmm(&as_rows(&x)?)?;
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

impl Look {
    /// `[n, places, places]` → weights that sum to one over the last axis.
    fn places(&self, energy: &Tensor) -> Result<Tensor, TchError> {
        energy.f_linear(&self.weight, Some(&self.bias))?.f_softmax(-1, None)
    }

    fn prepare(&self, target: Target) -> Result<Self, TchError> {
        let here = |t: &Tensor| t.f_detach()?.f_to_device_(target.device, target.kind, false, false);
        Ok(Self { weight: here(&self.weight)?, bias: here(&self.bias)?, gamma: here(&self.gamma)? })
    }
}

/// `[n, c, h, w]` channels last → `[n, h·w, c]`, without a copy.
fn as_rows(map: &Tensor) -> Result<Tensor, TchError> {
    map.f_permute([0, 2, 3, 1])?.f_flatten(1, 2)
}

/// Two 1×1 convolutions as one, in f64.
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
    let [rows, columns] = weight.size2()?.into();
    Ok((weight.f_view([rows, columns, 1, 1])?, bias))
}
