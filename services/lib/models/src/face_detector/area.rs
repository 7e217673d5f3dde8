//! Shrinking (and enlarging) by area: each output value is the mean of the input window it covers. Sums of bytes are
//! whole numbers, so the result is the one that `adaptive_avg_pool2d` gives in f32, at a tenth of its cost: columns are
//! summed in u16 first, many at once.

/// Part of a picture, in pixels; must lie inside it and not be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// A u8 RGB picture, `[height, width, 3]`.
#[derive(Clone, Copy)]
pub(super) struct Picture<'a> {
    pub(super) rgb: &'a [u8],
    pub(super) width: usize,
}

/// Height and width of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) height: usize,
    pub(super) width: usize,
}

/// Resamples with buffers that are kept from call to call.
#[derive(Default)]
pub(super) struct Resampler {
    narrow: Vec<u16>,
    wide: Vec<u32>,
    spans: Vec<(usize, usize)>,
}

/// Rows whose bytes fit a u16 sum: 257 · 255 = 65,535.
const NARROW_ROWS: usize = 257;

impl Resampler {
    /// Appends the region at the given size to `out`: f32 `[height, width, 3]` in the networks' range,
    /// `(value − 127.5) / 128`.
    pub(super) fn append(&mut self, picture: Picture<'_>, region: Region, size: Size, out: &mut Vec<f32>) {
        self.spans.clear();
        self.spans.extend((0..size.width).map(|column| window(column, region.width, size.width)));
        // A window covers at most this many rows.
        if region.height.div_ceil(size.height) < NARROW_ROWS {
            pool(&mut self.narrow, &self.spans, picture, (region, size.height), out);
        } else {
            pool(&mut self.wide, &self.spans, picture, (region, size.height), out);
        }
    }
}

/// A sum of bytes. Wrapping, because checked additions are not made many at once; [`NARROW_ROWS`] keeps a u16 from
/// wrapping, and a u32 holds the whole of the largest picture.
trait Sum: Copy + From<u8> + Into<u32> {
    fn plus(self, byte: u8) -> Self;
}

impl Sum for u16 {
    fn plus(self, byte: u8) -> Self {
        self.wrapping_add(byte.into())
    }
}

impl Sum for u32 {
    fn plus(self, byte: u8) -> Self {
        self.wrapping_add(byte.into())
    }
}

/// Start and end of the input that output `index` of `outputs` covers; neighbours may share an input.
fn window(index: usize, inputs: usize, outputs: usize) -> (usize, usize) {
    (index * inputs / outputs, ((index + 1) * inputs).div_ceil(outputs))
}

fn pool<T: Sum>(
    columns: &mut Vec<T>,
    spans: &[(usize, usize)],
    picture: Picture<'_>,
    (region, height): (Region, usize),
    out: &mut Vec<f32>,
) {
    for row in 0..height {
        let (start, end) = window(row, region.height, height);
        columns.clear();
        for y in region.top + start..region.top + end {
            let from = (y * picture.width + region.left) * 3;
            let bytes = &picture.rgb[from..from + region.width * 3];
            if columns.is_empty() {
                columns.extend(bytes.iter().map(|&byte| T::from(byte)));
            } else {
                columns.iter_mut().zip(bytes).for_each(|(sum, &byte)| *sum = sum.plus(byte));
            }
        }
        for &(left, right) in spans {
            let mut sums = [0_u32; 3];
            for pixel in columns[left * 3..right * 3].chunks_exact(3) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum = sum.wrapping_add(value.into());
                }
            }
            let area = ((end - start) * (right - left)) as f32;
            out.extend(sums.map(|sum| (sum as f32 / area - 127.5) * 0.007_812_5));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(count: usize) -> Vec<u8> {
        (0..count as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    fn resample(rgb: &[u8], width: usize, region: Region, size: Size) -> Vec<f32> {
        let mut out = Vec::new();
        Resampler::default().append(Picture { rgb, width }, region, size, &mut out);
        out
    }

    proptest! {
        /// Against libtorch's own area interpolation, on any region, up and down.
        #[test]
        fn it_is_adaptive_average_pooling(
            (left, top) in (0_usize..20, 0_usize..20),
            (width, height) in (1_usize..60, 1_usize..60),
            (out_width, out_height) in (1_usize..50, 1_usize..50),
        ) {
            let rgb = noise(80 * 80 * 3);
            let region = Region { left, top, width, height };
            let size = Size { width: out_width, height: out_height };
            let ours = tch::Tensor::from_slice(&resample(&rgb, 80, region, size));
            let whole = tch::Tensor::from_slice(&rgb).view([80, 80, 3]).permute([2, 0, 1]).to_kind(tch::Kind::Float);
            let part = whole.narrow(1, top as i64, height as i64).narrow(2, left as i64, width as i64);
            let theirs = part.adaptive_avg_pool2d([out_height as i64, out_width as i64]);
            let theirs = ((theirs - 127.5) * 0.007_812_5).permute([1, 2, 0]).contiguous().view([-1]);
            let difference = f64::try_from((ours - theirs).abs().max()).unwrap();
            prop_assert!(difference < 1e-6, "{difference}");
        }
    }

    #[test]
    fn windows_of_many_rows_do_not_overflow() {
        for rows in [256, 257, 258, 600] {
            let rgb = vec![255; rows * 2 * 3];
            let region = Region { left: 0, top: 0, width: 2, height: rows };
            assert_eq!(resample(&rgb, 2, region, Size { width: 1, height: 1 }), [127.5 / 128.0; 3]);
        }
    }
}
