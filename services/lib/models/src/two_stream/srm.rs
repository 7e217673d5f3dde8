//! Fixed high-pass filters (spatial rich model) that make a face's noise visible.

use tch::{Kind, TchError, Tensor};

use super::layers::{Conv, Geometry, Phase, Target, Then};
use super::scope::{Role, Scope};

/// Responses beyond this carry no more evidence: the published code clips to [−3, 3].
const CLIP: f64 = 3.0;

/// SRM on the image: 5×5, 3→3, zero padding, clipped to [−3, 3].
pub(crate) struct ImageFilter {
    conv: Conv,
    reads: Reads,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Channels,
    /// Each filter is the same for red, green and blue: it reads their sum, with a third of the work.
    Sum,
}

/// SRM on features: every channel through three filters, clipped, mixed by a 1×1 convolution with normalisation and ReLU.
pub(crate) struct FeatureFilter {
    filters: Conv,
    /// Which input channel each filter reads, where that is not the grouped convolution's own order.
    gather: Option<Tensor>,
    mix: Conv,
}

impl ImageFilter {
    pub(crate) fn new(scope: &Scope<'_>) -> Result<Self, TchError> {
        let weight = scope.tensor("kernel", &[3, 3, 5, 5], Role::Filter)?;
        let conv = Conv::bare(weight, Geometry { stride: 1, padding: 2, groups: 1 });
        Ok(Self { conv, reads: Reads::Channels })
    }

    /// `[n, 3, h, w]` → the same shape, in [−3, 3].
    pub(crate) fn forward(&self, image: &Tensor, phase: Phase) -> Result<Tensor, TchError> {
        let filtered = match self.reads {
            Reads::Channels => self.conv.forward(image, Then::Nothing, phase),
            Reads::Sum => {
                let sum = image.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Float)?;
                self.conv.forward(&sum, Then::Nothing, phase)
            }
        };
        filtered?.f_clamp_(-CLIP, CLIP)
    }
}

impl FeatureFilter {
    pub(crate) fn new(scope: &Scope<'_>, channels: i64) -> Result<Self, TchError> {
        let kernel = scope.tensor("kernel", &[3 * channels, 1, 5, 5], Role::Filter)?;
        let filters = Conv::bare(kernel, Geometry { stride: 1, padding: 2, groups: channels });
        let out = scope.at("out_conv");
        let mix = Conv::new(&out.at("0"), [3 * channels, channels, 1], Geometry::POINT)?
            .normalised(&out.at("1"), channels)?;
        Ok(Self { filters, gather: None, mix })
    }

    /// `[n, channels, h, w]` → the same shape, not negative.
    pub(crate) fn forward(&self, x: &Tensor, phase: Phase) -> Result<Tensor, TchError> {
        let gathered = match &self.gather {
            Some(channels) => x.f_index_select(1, channels)?,
            None => x.shallow_clone(),
        };
        let noise = self.filters.forward(&gathered, Then::Nothing, phase)?.f_clamp_(-CLIP, CLIP)?;
        self.mix.forward(&noise, Then::Relu, phase)
    }
}

impl ImageFilter {
    /// In f32 whatever the target's kind: an image's levels are finer than bf16, and the filter takes differences.
    pub(crate) fn prepare(&self, target: Target) -> Result<Self, TchError> {
        let target = Target { kind: Kind::Float, ..target };
        let kernel = self.conv.weight.f_detach()?;
        let one = kernel.f_narrow(1, 0, 1)?;
        if one.f_expand_as(&kernel)?.f_equal(&kernel)? {
            let conv = Conv::prepared(&one, None, self.conv.geometry, target)?;
            return Ok(Self { conv, reads: Reads::Sum });
        }
        Ok(Self { conv: self.conv.prepare(target)?, reads: Reads::Channels })
    }
}

impl FeatureFilter {
    /// Merges the copies: filters that give the same map become one, and the columns of the 1×1 convolution that
    /// read them are summed. Exact, since the clip works on each value by itself; 96 → 34 and 192 → 66 of the largest
    /// maps of the network.
    pub(crate) fn prepare(&self, target: Target) -> Result<Self, TchError> {
        let kernel = self.filters.weight.f_detach()?;
        let (mix_weight, mix_bias) = self.mix.folded()?;
        let merged = Merged::of(&rows_of(&kernel)?, self.filters.geometry.groups);
        let count = merged.sources.len() as i64;

        let first_rows = Tensor::f_from_slice(&merged.first_rows)?;
        let owners = Tensor::f_from_slice(&merged.owners)?;
        let outputs = mix_weight.size()[0];
        let weight = Tensor::f_zeros([outputs, count, 1, 1], (mix_weight.kind(), mix_weight.device()))?
            .f_index_add(1, &owners, &mix_weight)?;
        let geometry = Geometry { groups: count, ..self.filters.geometry };
        let gather = Tensor::f_from_slice(&merged.sources)?.f_to_device(target.device)?;
        Ok(Self {
            filters: Conv::prepared(&kernel.f_index_select(0, &first_rows)?, None, geometry, target)?,
            gather: Some(gather),
            mix: Conv::prepared(&weight, mix_bias.as_ref(), Geometry::POINT, target)?,
        })
    }
}

/// Which filters are left when each channel's equal ones are merged.
struct Merged {
    /// For each filter left: the channel it reads.
    sources: Vec<i64>,
    /// For each filter left: its row in the kernel.
    first_rows: Vec<i64>,
    /// For each row of the kernel: the filter that now stands for it.
    owners: Vec<i64>,
}

impl Merged {
    fn of(rows: &[Vec<f32>], channels: i64) -> Self {
        let per_channel = rows.len() / channels as usize;
        let mut merged = Merged { sources: Vec::new(), first_rows: Vec::new(), owners: Vec::new() };
        for (row, values) in rows.iter().enumerate() {
            let channel = (row / per_channel) as i64;
            let twin = (0..merged.sources.len()).find(|&filter| {
                merged.sources[filter] == channel && rows[merged.first_rows[filter] as usize] == *values
            });
            merged.owners.push(twin.unwrap_or(merged.sources.len()) as i64);
            if twin.is_none() {
                merged.sources.push(channel);
                merged.first_rows.push(row as i64);
            }
        }
        merged
    }
}

fn rows_of(kernel: &Tensor) -> Result<Vec<Vec<f32>>, TchError> {
    let [rows, taps] = kernel.f_flatten(1, -1)?.size2()?.into();
    let mut values = vec![0f32; (rows * taps) as usize];
    kernel.f_contiguous()?.f_copy_data(&mut values, (rows * taps) as usize)?;
    Ok(values.chunks(taps as usize).map(<[f32]>::to_vec).collect())
}

/// The published filter of that shape: `[3, 3, 5, 5]` for the image, `[3·C, 1, 5, 5]` for C feature channels.
///
/// The feature stack is K1 repeated C times, then K2, then K3, while the grouped convolution hands rows 3g…3g+2 to
/// channel g: nearly every channel gets three copies of one filter. So it was published and trained; it is kept.
pub(crate) fn published_kernel(shape: &[i64]) -> Result<Tensor, TchError> {
    let filters = kernels();
    let values: Vec<f32> = match shape {
        [3, 3, 5, 5] => filters.iter().flat_map(|filter| filter.repeat(3)).collect(),
        [rows, 1, 5, 5] if rows % 3 == 0 => {
            filters.iter().flat_map(|filter| filter.repeat((rows / 3) as usize)).collect()
        }
        _ => return Err(TchError::Shape(format!("no SRM filter is shaped {shape:?}"))),
    };
    Tensor::f_from_slice(&values)?.f_to_kind(Kind::Float)?.f_view(shape)
}

/// The three filters of the paper, row by row. Each sums to zero.
#[rustfmt::skip]
fn kernels() -> [Vec<f32>; 3] {
    let over = |divisor: f32, taps: [i8; 25]| taps.iter().map(|tap| f32::from(*tap) / divisor).collect();
    [
        over(4.0, [0,  0,  0,  0, 0,   0, -1,  2, -1,  0,   0,  2,  -4,  2,  0,   0, -1,  2, -1,  0,   0,  0,  0,  0,  0]),
        over(12.0, [-1, 2, -2,  2, -1,  2, -6,  8, -6,  2,  -2,  8, -12,  8, -2,   2, -6,  8, -6,  2,  -1,  2, -2,  2, -1]),
        over(2.0, [0,  0,  0,  0, 0,   0,  0,  0,  0,  0,   0,  1,  -2,  1,  0,   0,  0,  0,  0,  0,   0,  0,  0,  0,  0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_ignores_a_flat_surface() {
        for filter in kernels() {
            assert!(filter.iter().sum::<f32>().abs() < 1e-6, "{filter:?}");
        }
    }

    #[test]
    fn copies_merge_to_the_published_number_of_maps() {
        for (channels, maps) in [(32, 34), (64, 66)] {
            let kernel = published_kernel(&[3 * channels, 1, 5, 5]).unwrap();
            let merged = Merged::of(&rows_of(&kernel).unwrap(), channels);
            assert_eq!(merged.sources.len(), maps, "{channels} channels");
            assert_eq!(merged.owners.len() as i64, 3 * channels);
        }
    }
}
