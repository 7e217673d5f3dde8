//! `crop: aligned`, geometry as DeepfakeBench's `preprocess.py` (`img_align_crop`, scale 1.3) has it.

use forensics::frame::CROP_BYTES;
use forensics::{CROP_SIDE, Frame, Point};

/// ArcFace's five points for a 112×112 crop: eyes, nose, corners of the mouth (Deng et al., CVPR 2019, code).
const TEMPLATE_112: [(f64, f64); 5] =
    [(30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655), (62.7299, 92.2041)];

/// The template is for 96×112; this centres it in 112×112.
const SHIFT_X: f64 = 8.0;

/// The crop is wider than the template by this factor.
const SCALE: f64 = 1.3;

/// A face is enlarged or shrunk at most so often; beyond, the landmarks are taken for wrong. Chosen: a crop
/// then covers 4 to 16,384 pixels a side, more than any face that a detector reports in an allowed picture.
const ZOOM_MAX: f64 = 64.0;

/// Coordinates are rounded to 1/2048 pixel: four weights of 22 bits and a byte make 30 bits.
const FRACTION_BITS: u32 = 11;

/// The aligned crop, or `None` where the landmarks give no sensible transform.
pub(super) fn crop(frame: &Frame, landmarks: &[Point; 5]) -> Option<Box<[u8]>> {
    let inverse = Similarity::between(landmarks, &template())?.inverse(frame)?;
    Some(warp(frame, &inverse))
}

/// Where the five landmarks lie in the 256×256 crop.
pub(super) fn template() -> [(f64, f64); 5] {
    let side = CROP_SIDE as f64;
    let margin = side * (SCALE - 1.0) / 2.0;
    let place = |at: f64| (at * side / 112.0 + margin) * (side / (side + 2.0 * margin));
    TEMPLATE_112.map(|(x, y)| (place(x + SHIFT_X), place(y)))
}

/// `x' = a·x − b·y + tx`, `y' = b·x + a·y + ty`: rotation, uniform scale, shift; no reflection.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Similarity {
    a: f64,
    b: f64,
    tx: f64,
    ty: f64,
}

impl Similarity {
    /// The least-squares similarity from `from` onto `to` (Umeyama, IEEE TPAMI 1991; in the plane and
    /// without reflection it is linear regression over complex numbers).
    fn between(from: &[Point; 5], to: &[(f64, f64); 5]) -> Option<Self> {
        let from = from.map(|point| (f64::from(point.x), f64::from(point.y)));
        let (mx, my) = mean(&from);
        let (ux, uy) = mean(to);
        let (mut along, mut across, mut spread) = (0.0, 0.0, 0.0);
        for (&(x, y), &(u, v)) in from.iter().zip(to) {
            let (x, y, u, v) = (x - mx, y - my, u - ux, v - uy);
            along += x * u + y * v;
            across += x * v - y * u;
            spread += x * x + y * y;
        }
        let (a, b) = (along / spread, across / spread);
        let zoom = a.hypot(b);
        // NaN and infinity fail this too.
        let sensible = (1.0 / ZOOM_MAX..=ZOOM_MAX).contains(&zoom);
        sensible.then(|| Self { a, b, tx: ux - (a * mx - b * my), ty: uy - (b * mx + a * my) })
    }

    /// From the crop back to the frame; `None` where the crop's middle lies outside of the frame.
    fn inverse(&self, frame: &Frame) -> Option<Self> {
        let square = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / square, -self.b / square);
        let inverse = Self { a, b, tx: -(a * self.tx - b * self.ty), ty: -(b * self.tx + a * self.ty) };
        let (x, y) = inverse.apply(CROP_SIDE as f64 / 2.0, CROP_SIDE as f64 / 2.0);
        let inside =
            (0.0..f64::from(frame.width())).contains(&x) && (0.0..f64::from(frame.height())).contains(&y);
        inside.then_some(inverse)
    }

    fn apply(&self, x: f64, y: f64) -> (f64, f64) {
        (self.a * x - self.b * y + self.tx, self.b * x + self.a * y + self.ty)
    }
}

fn mean(points: &[(f64, f64); 5]) -> (f64, f64) {
    let (x, y) = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    (x / 5.0, y / 5.0)
}

/// Fills the crop: pixel centres at whole coordinates, bilinear, black beyond the frame (as OpenCV's
/// `warpAffine` with its defaults, but not rounded to 1/32 pixel).
fn warp(frame: &Frame, inverse: &Similarity) -> Box<[u8]> {
    let mut pixels = vec![0; CROP_BYTES].into_boxed_slice();
    let (width, height) = (i64::from(frame.width()), i64::from(frame.height()));
    let one = f64::from(1u32 << 20);
    // Steps in 1/2^31: 256 of them stay far below 1/2048 pixel of error, and i64 holds any coordinate.
    let step = ((inverse.a * one * 2048.0) as i64, (inverse.b * one * 2048.0) as i64);
    let shift = 31 - FRACTION_BITS;
    let mask = (1i64 << FRACTION_BITS) - 1;
    let stride = frame.width() as usize * 3;
    let rgb = frame.rgb();
    for (row, line) in pixels.chunks_exact_mut(CROP_SIDE * 3).enumerate() {
        let (x, y) = inverse.apply(0.0, row as f64);
        let (mut x, mut y) = ((x * one * 2048.0) as i64, (y * one * 2048.0) as i64);
        for pixel in line.chunks_exact_mut(3) {
            let half = 1i64 << (shift - 1);
            let (fine_x, fine_y) = ((x + half) >> shift, (y + half) >> shift);
            let (column, line_index) = (fine_x >> FRACTION_BITS, fine_y >> FRACTION_BITS);
            let weights = Weights::new((fine_x & mask) as u32, (fine_y & mask) as u32);
            if column >= 0 && line_index >= 0 && column + 1 < width && line_index + 1 < height {
                let at = line_index as usize * stride + column as usize * 3;
                let (upper, lower) = (&rgb[at..at + 6], &rgb[at + stride..at + stride + 6]);
                for channel in 0..3 {
                    pixel[channel] =
                        weights.mix([upper[channel], upper[channel + 3], lower[channel], lower[channel + 3]]);
                }
            } else if column >= -1 && line_index >= -1 && column < width && line_index < height {
                border(frame, (column, line_index), &weights, pixel);
            }
            x += step.0;
            y += step.1;
        }
    }
    pixels
}

/// A pixel of which a part lies beyond the edge: black there.
#[cold]
fn border(frame: &Frame, (column, line): (i64, i64), weights: &Weights, pixel: &mut [u8]) {
    let at = |x: i64, y: i64| {
        let inside = x >= 0 && y >= 0 && x < i64::from(frame.width()) && y < i64::from(frame.height());
        if inside { frame.pixel(x as u32, y as u32) } else { [0; 3] }
    };
    let corners = [at(column, line), at(column + 1, line), at(column, line + 1), at(column + 1, line + 1)];
    for (channel, value) in pixel.iter_mut().enumerate() {
        *value = weights.mix(corners.map(|corner| corner[channel]));
    }
}

/// Shares of the four neighbours; they add up to 2^22.
struct Weights([u32; 4]);

impl Weights {
    fn new(x: u32, y: u32) -> Self {
        let one = 1 << FRACTION_BITS;
        Self([(one - x) * (one - y), x * (one - y), (one - x) * y, x * y])
    }

    fn mix(&self, corners: [u8; 4]) -> u8 {
        let sum: u32 = self.0.iter().zip(corners).map(|(weight, value)| weight * u32::from(value)).sum();
        ((sum + (1 << (2 * FRACTION_BITS - 1))) >> (2 * FRACTION_BITS)) as u8
    }
}

#[cfg(test)]
mod tests;
