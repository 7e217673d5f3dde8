//! `crop: aligned`, geometry as DeepfakeBench's `preprocess.py` (`img_align_crop`, scale 1.3) has it.

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

/// The aligned crop with `border` pixels more on each side, or `None` where the landmarks give no sensible transform.
pub(super) fn crop(frame: &Frame, landmarks: &[Point; 5], border: usize) -> Option<Wide> {
    let transform = Similarity::between(landmarks, &template())?;
    let inverse = transform.inverse(frame)?;
    let shift = border as f64;
    let landmarks = landmarks.map(|Point { x, y }| {
        let (x, y) = transform.apply(f64::from(x), f64::from(y));
        Point { x: (x + shift) as f32, y: (y + shift) as f32 }
    });
    Some(Wide { pixels: warp(frame, &inverse, border), landmarks })
}

/// An aligned crop with its surroundings.
#[derive(Debug, Clone, PartialEq)]
pub struct Wide {
    /// u8 RGB, `[256 + 2·border, 256 + 2·border, 3]`; black beyond the frame.
    pub pixels: Box<[u8]>,
    /// The five landmarks in its pixels.
    pub landmarks: [Point; 5],
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
        sensible.then_some(Self { a, b, tx: ux - (a * mx - b * my), ty: uy - (b * mx + a * my) })
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

/// Coordinates while walking a row: fixed point with 31 binary places, so that 256 steps stay exact enough.
const PLACES: u32 = 31;

/// Fills the crop: pixel centres at whole coordinates, bilinear, black beyond the frame (as OpenCV's
/// `warpAffine` with its defaults, which rounds coordinates to 1/32 pixel).
fn warp(frame: &Frame, inverse: &Similarity, border: usize) -> Box<[u8]> {
    let side = CROP_SIDE + 2 * border;
    let mut pixels = vec![0; side * side * 3].into_boxed_slice();
    let fixed = |value: f64| (value * f64::from(1u32 << PLACES)) as i64;
    let step = (fixed(inverse.a), fixed(inverse.b));
    let (width, height) = (u64::from(frame.width()), u64::from(frame.height()));
    let stride = frame.width() as usize * 3;
    let rgb = frame.rgb();
    for (row, line) in pixels.chunks_exact_mut(side * 3).enumerate() {
        let (x, y) = inverse.apply(-(border as f64), row as f64 - border as f64);
        let (mut x, mut y) = (fixed(x), fixed(y));
        for pixel in line.chunks_exact_mut(3) {
            let (column, weights_x) = split(x, X_BITS);
            let (line_index, weights_y) = split(y, Y_BITS);
            let weights = Weights::new(weights_x, weights_y);
            // As unsigned numbers those left of and above the frame are huge.
            let inside = (column as u64) < width - 1 && (line_index as u64) < height - 1;
            let at = if inside { line_index as usize * stride + column as usize * 3 } else { rgb.len() };
            // Two neighbours are six bytes, read as eight: the frame's last ones go the slow way.
            if let (Some(upper), Some(lower)) = (eight(rgb, at), eight(rgb, at + stride)) {
                pixel.copy_from_slice(&weights.mix([upper, upper >> 24, lower, lower >> 24]));
            } else {
                pixel.copy_from_slice(&beyond(frame, (column, line_index), &weights));
            }
            x += step.0;
            y += step.1;
        }
    }
    pixels
}

fn eight(rgb: &[u8], at: usize) -> Option<u64> {
    let bytes = rgb.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// Whole pixels and, rounded to `bits` binary places, the rest.
fn split(coordinate: i64, bits: u32) -> (i64, u64) {
    let shift = PLACES - bits;
    let fine = (coordinate + (1 << (shift - 1))) >> shift;
    (fine >> bits, (fine & ((1 << bits) - 1)) as u64)
}

/// A pixel that lies beyond the edge, in part or whole: black there.
#[cold]
fn beyond(frame: &Frame, (column, line): (i64, i64), weights: &Weights) -> [u8; 3] {
    let at = |x: i64, y: i64| {
        let inside = x >= 0 && y >= 0 && x < i64::from(frame.width()) && y < i64::from(frame.height());
        let [r, g, b] = if inside { frame.pixel(x as u32, y as u32) } else { [0; 3] };
        u64::from_le_bytes([r, g, b, 0, 0, 0, 0, 0])
    };
    weights.mix([at(column, line), at(column + 1, line), at(column, line + 1), at(column + 1, line + 1)])
}

/// Binary places of a coordinate. Together they are 13, and 13 + 8 bits of a value make 21: three channels
/// in one 64-bit number.
const X_BITS: u32 = 6;
const Y_BITS: u32 = 7;

/// Bits of one channel's lane.
const LANE: u32 = X_BITS + Y_BITS + 8;

/// Shares of the four neighbours; they add up to 2^13.
struct Weights([u64; 4]);

impl Weights {
    fn new(x: u64, y: u64) -> Self {
        let (all_x, all_y) = (1 << X_BITS, 1 << Y_BITS);
        Self([(all_x - x) * (all_y - y), x * (all_y - y), (all_x - x) * y, x * y])
    }

    /// The mix of four pixels, each in the low 24 bits.
    fn mix(&self, corners: [u64; 4]) -> [u8; 3] {
        const HALF: u64 = 1 << (X_BITS + Y_BITS - 1);
        let mut lanes = HALF | HALF << LANE | HALF << (2 * LANE);
        for (weight, corner) in self.0.iter().zip(corners) {
            let spread =
                corner & 0xff | (corner & 0xff00) << (LANE - 8) | (corner & 0xff_0000) << (2 * LANE - 16);
            lanes += weight * spread;
        }
        [0, LANE, 2 * LANE].map(|lane| (lanes >> (lane + X_BITS + Y_BITS)) as u8)
    }
}

#[cfg(test)]
mod tests;
