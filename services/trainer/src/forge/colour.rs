//! Colours: small shifts that a second camera would make, and one face's colours given to another.

use std::sync::LazyLock;

use crate::chance::Draw;
use crate::picture::{Picture, luminance};

/// What happens to every pixel alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ColourShift {
    /// Added to red, green, blue, in levels of 255.
    pub(crate) offset: [f32; 3],
    /// About the middle grey.
    pub(crate) contrast: f32,
    /// Distance from grey.
    pub(crate) saturation: f32,
}

impl ColourShift {
    /// As self-blended images have it: some levels of offset, a tenth of contrast and brightness, some saturation.
    pub(crate) fn drawn(draw: &mut Draw) -> Self {
        let mut offset = [draw.around_zero(0.1) * 255.0 * 0.5; 3];
        if draw.chance(0.4) {
            offset = offset.map(|value| value + draw.around_zero(20.0));
        }
        Self {
            offset,
            contrast: 1.0 + draw.around_zero(0.1),
            saturation: if draw.chance(0.4) { draw.within(0.7, 1.3) } else { 1.0 },
        }
    }

    /// What the whole picture may have been taken and developed with: far wider, and one in seven is grey. Chosen.
    pub(crate) fn another_camera(draw: &mut Draw) -> Self {
        let contrast = draw.within(0.75, 1.3);
        if draw.chance(0.15) {
            return Self { offset: [draw.around_zero(25.0); 3], contrast, saturation: 0.0 };
        }
        let offset = std::array::from_fn(|_| draw.around_zero(25.0));
        Self { offset, contrast, saturation: draw.within(0.5, 1.5) }
    }

    pub(crate) fn apply(&self, picture: Picture) -> Picture {
        picture.map(|pixel| {
            let grey = luminance(pixel);
            std::array::from_fn(|channel| {
                let coloured = grey + (pixel[channel] - grey) * self.saturation;
                ((coloured - 127.5) * self.contrast + 127.5 + self.offset[channel]).clamp(0.0, 255.0)
            })
        })
    }
}

/// `donor` with the mean and deviation that `target` has where `weights` are, in CIE Lab (Reinhard et al., *Color Transfer
/// between Images*, 2001).
pub(crate) fn transferred(donor: &Picture, target: &Picture, weights: &[f32]) -> Picture {
    let of = |picture: &Picture| -> Vec<[f32; 3]> {
        let pixels = picture.pixels.iter().zip(weights);
        pixels.map(|(pixel, weight)| if *weight > 0.0 { lab(*pixel) } else { [0.0; 3] }).collect()
    };
    let donor_lab = of(donor);
    let (from, to) = (Moments::of(&donor_lab, weights), Moments::of(&of(target), weights));
    let mut result = donor.clone();
    for ((pixel, lab), weight) in result.pixels.iter_mut().zip(donor_lab).zip(weights) {
        if *weight > 0.0 {
            *pixel = rgb(std::array::from_fn(|channel| {
                let gain = (to.deviation[channel] / from.deviation[channel].max(1e-3)).clamp(0.5, 2.0);
                (lab[channel] - from.mean[channel]) * gain + to.mean[channel]
            }));
        }
    }
    result
}

struct Moments {
    mean: [f32; 3],
    deviation: [f32; 3],
}

impl Moments {
    fn of(pixels: &[[f32; 3]], weights: &[f32]) -> Self {
        let mass = weights.iter().sum::<f32>().max(1e-6);
        let weighted = |value: &dyn Fn(&[f32; 3]) -> [f32; 3]| -> [f32; 3] {
            let mut sum = [0f32; 3];
            for (pixel, weight) in pixels.iter().zip(weights) {
                let value = value(pixel);
                (0..3).for_each(|channel| sum[channel] += weight * value[channel]);
            }
            sum.map(|sum| sum / mass)
        };
        let mean = weighted(&|pixel| *pixel);
        let variance = weighted(&|pixel| std::array::from_fn(|c| (pixel[c] - mean[c]).powi(2)));
        Self { mean, deviation: variance.map(f32::sqrt) }
    }
}

/// White of D65, in XYZ.
const WHITE: [f32; 3] = [0.950_47, 1.0, 1.088_83];
/// Where Lab's cube root turns into a line: (6/29)³ and its slope and offset.
const KNEE: f32 = 0.008_856;

/// sRGB's curve for all 256 levels.
static LINEAR: LazyLock<[f32; 256]> = LazyLock::new(|| {
    std::array::from_fn(|level| {
        let value = level as f32 / 255.0;
        if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    })
});

fn linear(level: f32) -> f32 {
    let level = level.clamp(0.0, 255.0);
    let (below, rest) = (level as usize, level.fract());
    LINEAR[below] + (LINEAR[(below + 1).min(255)] - LINEAR[below]) * rest
}

fn lab(pixel: [f32; 3]) -> [f32; 3] {
    let [r, g, b] = pixel.map(linear);
    let xyz = [
        0.412_456 * r + 0.357_576 * g + 0.180_437 * b,
        0.212_673 * r + 0.715_152 * g + 0.072_175 * b,
        0.019_334 * r + 0.119_192 * g + 0.950_304 * b,
    ];
    let f = |value: f32| if value > KNEE { value.cbrt() } else { 7.787 * value + 16.0 / 116.0 };
    let [x, y, z] = std::array::from_fn(|axis| f(xyz[axis] / WHITE[axis]));
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

fn rgb([l, a, b]: [f32; 3]) -> [f32; 3] {
    let y = (l + 16.0) / 116.0;
    let back = |value: f32| if value.powi(3) > KNEE { value.powi(3) } else { (value - 16.0 / 116.0) / 7.787 };
    let [x, y, z] = [back(y + a / 500.0) * WHITE[0], back(y), back(y - b / 200.0) * WHITE[2]];
    let linear = [
        3.240_454 * x - 1.537_138 * y - 0.498_531 * z,
        -0.969_266 * x + 1.876_011 * y + 0.041_556 * z,
        0.055_643 * x - 0.204_026 * y + 1.057_225 * z,
    ];
    linear.map(|value| {
        let value = value.clamp(0.0, 1.0);
        255.0 * if value <= 0.003_131 { 12.92 * value } else { 1.055 * value.powf(1.0 / 2.4) - 0.055 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lab_is_the_published_one_and_goes_there_and_back() {
        // Reference values of CIE Lab under D65 (Lindbloom's calculator): pure red, and white.
        for (pixel, expected) in [([255.0, 0.0, 0.0], [53.24, 80.09, 67.20]), ([255.0; 3], [100.0, 0.0, 0.0])]
        {
            let found = lab(pixel);
            assert!(found.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 0.05), "{found:?}");
        }
        for pixel in [[12.0, 200.0, 31.0], [0.0, 0.0, 0.0], [90.5, 3.0, 250.0]] {
            let back = rgb(lab(pixel));
            assert!(back.iter().zip(pixel).all(|(a, b)| (a - b).abs() < 0.3), "{pixel:?} became {back:?}");
        }
    }

    #[test]
    fn a_donor_takes_on_the_targets_colours() {
        let bright = |base: u8| {
            (0..400u32).flat_map(|at| [base + (at % 20) as u8, base, base / 2]).collect::<Vec<_>>()
        };
        let (donor, target) =
            (Picture::from_rgb(20, 20, &bright(60)), Picture::from_rgb(20, 20, &bright(150)));
        let moved = transferred(&donor, &target, &[1.0; 400]);
        let mean = |picture: &Picture| picture.pixels.iter().map(|pixel| pixel[1]).sum::<f32>() / 400.0;
        assert!((mean(&moved) - mean(&target)).abs() < 3.0, "{} {}", mean(&moved), mean(&target));
        assert_eq!(transferred(&donor, &target, &[0.0; 400]), donor);
    }
}
