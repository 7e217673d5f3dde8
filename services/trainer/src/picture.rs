//! Pictures while they are worked on, and where their pixels go.

use forensics::{CROP_SIDE, Point};

/// Pixels of surroundings on each side of a face: what rotation, scale and shift of the augmentation reach, but for a corner
/// (24 pixels of it at most) of one in twenty views, where the edge is repeated.
pub(crate) const BORDER: usize = 64;
/// Side of a face with its surroundings.
pub(crate) const WIDE_SIDE: usize = CROP_SIDE + 2 * BORDER;

/// A face with its surroundings: [`WIDE_SIDE`] pixels square, or a whole photo.
pub(crate) struct WideFace {
    pub(crate) picture: Picture,
    /// In the picture.
    pub(crate) landmarks: [Point; 5],
}

/// RGB in [0, 255], f32: what is computed on it is rounded once, at the end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Picture {
    width: usize,
    height: usize,
    pub(crate) pixels: Vec<[f32; 3]>,
}

/// `x' = a·x − b·y + tx`, `y' = b·x + a·y + ty`: rotation, uniform scale, shift.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Similarity {
    a: f32,
    b: f32,
    tx: f32,
    ty: f32,
}

impl Picture {
    /// From u8 RGB `[height, width, 3]`.
    pub(crate) fn from_rgb(width: usize, height: usize, rgb: &[u8]) -> Self {
        let (pixels, _) = rgb.as_chunks::<3>();
        assert_eq!(pixels.len(), width * height, "{width} × {height} pixels");
        Self { width, height, pixels: pixels.iter().map(|pixel| pixel.map(f32::from)).collect() }
    }

    pub(crate) fn to_rgb(&self) -> Vec<u8> {
        // A cast from float to integer saturates.
        self.pixels.iter().flat_map(|pixel| pixel.map(|value| (value + 0.5) as u8)).collect()
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn height(&self) -> usize {
        self.height
    }

    /// Every pixel changed by itself.
    pub(crate) fn map(mut self, change: impl Fn([f32; 3]) -> [f32; 3]) -> Self {
        for pixel in &mut self.pixels {
            *pixel = change(*pixel);
        }
        self
    }

    /// `width` × `height` pixels, each taken from where `source` says it comes from; bilinear, the edge repeated.
    pub(crate) fn warped(&self, width: usize, height: usize, source: &Similarity) -> Self {
        let mut pixels = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                let Point { x, y } = source.apply(Point { x: x as f32, y: y as f32 });
                pixels.push(self.at(x, y));
            }
        }
        Self { width, height, pixels }
    }

    /// The pixel at a place between pixels; the edge is repeated beyond.
    fn at(&self, x: f32, y: f32) -> [f32; 3] {
        let x = x.clamp(0.0, (self.width - 1) as f32);
        let y = y.clamp(0.0, (self.height - 1) as f32);
        let (left, top) =
            ((x as usize).min(self.width.saturating_sub(2)), (y as usize).min(self.height.saturating_sub(2)));
        let (fx, fy) = (x - left as f32, y - top as f32);
        let (right, below) = ((left + 1).min(self.width - 1), (top + 1).min(self.height - 1));
        let corner = |x: usize, y: usize| self.pixels[y * self.width + x];
        let (a, b, c, d) = (corner(left, top), corner(right, top), corner(left, below), corner(right, below));
        std::array::from_fn(|channel| {
            let upper = a[channel] + (b[channel] - a[channel]) * fx;
            let lower = c[channel] + (d[channel] - c[channel]) * fx;
            upper + (lower - upper) * fy
        })
    }

    /// The network's input around the middle of a wide crop.
    pub(crate) fn middle(&self) -> Self {
        let (left, top) = ((self.width - CROP_SIDE) / 2, (self.height - CROP_SIDE) / 2);
        let rows = self.pixels.chunks(self.width).skip(top).take(CROP_SIDE);
        let pixels = rows.flat_map(|row| &row[left..left + CROP_SIDE]).copied().collect();
        Self { width: CROP_SIDE, height: CROP_SIDE, pixels }
    }

    pub(crate) fn mirrored(mut self) -> Self {
        self.pixels.chunks_mut(self.width).for_each(<[_]>::reverse);
        self
    }

    /// Shrunk to `share` of its size (in (0, 1]) by averaging, and enlarged again bilinearly: fine detail is lost.
    pub(crate) fn coarsened(&self, share: f32) -> Self {
        let (width, height) = (scaled(self.width, share), scaled(self.height, share));
        let small = self.averaged(width, height);
        let back = [width as f32 / self.width as f32, height as f32 / self.height as f32];
        small.stretched(self.width, self.height, back)
    }

    /// Each pixel the mean of the box that it stands for (`INTER_AREA`).
    fn averaged(&self, width: usize, height: usize) -> Self {
        let columns = boxes(self.width, width);
        let rows = boxes(self.height, height);
        let mut narrow = vec![[0.0; 3]; width * self.height];
        for (line, out) in self.pixels.chunks(self.width).zip(narrow.chunks_mut(width)) {
            for (pixel, taps) in out.iter_mut().zip(&columns) {
                *pixel = mean(taps, |at| line[at]);
            }
        }
        let mut pixels = Vec::with_capacity(width * height);
        for taps in &rows {
            for x in 0..width {
                pixels.push(mean(taps, |at| narrow[at * width + x]));
            }
        }
        Self { width, height, pixels }
    }

    /// Luminance of `columns` × `rows` averages, row by row.
    pub(crate) fn luminance_grid(&self, columns: usize, rows: usize) -> Vec<f32> {
        self.averaged(columns, rows).pixels.into_iter().map(luminance).collect()
    }

    fn stretched(&self, width: usize, height: usize, [step_x, step_y]: [f32; 2]) -> Self {
        let mut pixels = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                pixels.push(self.at((x as f32 + 0.5) * step_x - 0.5, (y as f32 + 0.5) * step_y - 0.5));
            }
        }
        Self { width, height, pixels }
    }

    /// Gaussian blur, σ in pixels; nothing happens below 0.1.
    pub(crate) fn blurred(self, sigma: f32) -> Self {
        if sigma < 0.1 {
            return self;
        }
        let reach = (3.0 * sigma).ceil() as i64;
        let weights: Vec<f32> =
            (-reach..=reach).map(|at| (-0.5 * (at as f32 / sigma).powi(2)).exp()).collect();
        let sum: f32 = weights.iter().sum();
        let weights: Vec<f32> = weights.iter().map(|weight| weight / sum).collect();
        let across = self.convolved(&weights, reach, true);
        across.convolved(&weights, reach, false)
    }

    fn convolved(&self, weights: &[f32], reach: i64, across: bool) -> Self {
        let (width, height) = (self.width as i64, self.height as i64);
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for y in 0..height {
            for x in 0..width {
                let mut sum = [0f32; 3];
                for (weight, step) in weights.iter().zip(-reach..) {
                    let at = match across {
                        true => y * width + (x + step).clamp(0, width - 1),
                        false => (y + step).clamp(0, height - 1) * width + x,
                    };
                    let pixel = self.pixels[at as usize];
                    (0..3).for_each(|channel| sum[channel] += weight * pixel[channel]);
                }
                pixels.push(sum);
            }
        }
        Self { pixels, ..*self }
    }

    /// `other` where `weight` is 1, this picture where it is 0.
    pub(crate) fn blended(mut self, other: &Self, weight: &[f32]) -> Self {
        for ((pixel, other), weight) in self.pixels.iter_mut().zip(&other.pixels).zip(weight) {
            *pixel =
                std::array::from_fn(|channel| pixel[channel] + (other[channel] - pixel[channel]) * weight);
        }
        self
    }
}

impl Similarity {
    /// Turns by `radians` and scales by `zoom` about `centre`, then shifts.
    pub(crate) fn about(centre: Point, radians: f32, zoom: f32, shift: Point) -> Self {
        let (a, b) = (zoom * radians.cos(), zoom * radians.sin());
        Self {
            a,
            b,
            tx: centre.x + shift.x - (a * centre.x - b * centre.y),
            ty: centre.y + shift.y - (b * centre.x + a * centre.y),
        }
    }

    /// The least-squares similarity from `from` onto `to` (Umeyama, IEEE TPAMI 1991), `None` if `from` is one point. In f32, where
    /// `media`'s alignment has the same in f64: every sample since [`crate::forge::VERSION`] 1 was drawn with these digits.
    pub(crate) fn between(from: &[Point; 5], to: &[Point; 5]) -> Option<Self> {
        let (m, u) = (centre(from), centre(to));
        let (mut along, mut across, mut spread) = (0.0, 0.0, 0.0);
        for (p, q) in from.iter().zip(to) {
            let (x, y, v, w) = (p.x - m.x, p.y - m.y, q.x - u.x, q.y - u.y);
            along += x * v + y * w;
            across += x * w - y * v;
            spread += x * x + y * y;
        }
        let (a, b) = (along / spread, across / spread);
        let found = Self { a, b, tx: u.x - (a * m.x - b * m.y), ty: u.y - (b * m.x + a * m.y) };
        (a.hypot(b).is_finite() && a.hypot(b) > 0.0).then_some(found)
    }

    pub(crate) fn apply(&self, Point { x, y }: Point) -> Point {
        Point { x: self.a * x - self.b * y + self.tx, y: self.b * x + self.a * y + self.ty }
    }
}

/// Rec. 601.
pub(crate) fn luminance([r, g, b]: [f32; 3]) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

fn centre(points: &[Point; 5]) -> Point {
    let sum = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.x, sum.1 + point.y));
    Point { x: sum.0 / 5.0, y: sum.1 / 5.0 }
}

fn scaled(side: usize, share: f32) -> usize {
    ((side as f32 * share).round() as usize).clamp(1, side)
}

/// For each of `to` boxes over `from` pixels: which pixels, and how much of each.
fn boxes(from: usize, to: usize) -> Vec<Vec<(usize, f32)>> {
    let size = from as f32 / to as f32;
    let one = |index: usize| {
        let (start, end) = (index as f32 * size, (index + 1) as f32 * size);
        let pixels = start as usize..(end.ceil() as usize).min(from);
        let share = |at: usize| (end.min((at + 1) as f32) - start.max(at as f32)).max(0.0) / size;
        pixels.map(|at| (at, share(at))).collect()
    };
    (0..to).map(one).collect()
}

fn mean(taps: &[(usize, f32)], pixel: impl Fn(usize) -> [f32; 3]) -> [f32; 3] {
    taps.iter().fold([0.0; 3], |mut sum, &(at, weight)| {
        let pixel = pixel(at);
        (0..3).for_each(|channel| sum[channel] += weight * pixel[channel]);
        sum
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::chance::{Draw, Purpose};

    /// A face of smooth shades with fine grain, as large as a wide crop, with the template's landmarks.
    pub(crate) fn face(seed: u64) -> WideFace {
        let mut draw = Draw::new(seed, Purpose::Noise, 1);
        let tint = [draw.within(90.0, 190.0), draw.within(80.0, 150.0), draw.within(70.0, 130.0)];
        let waves = [draw.within(10.0, 40.0), draw.within(0.02, 0.06)];
        let mut rgb = Vec::new();
        for at in 0..WIDE_SIDE * WIDE_SIDE {
            let (x, y) = ((at % WIDE_SIDE) as f32, (at / WIDE_SIDE) as f32);
            let shade = waves[0] * (x * waves[1]).sin() * (y * waves[1]).cos() + 3.0 * draw.normal();
            rgb.extend(tint.map(|tint| (tint + shade) as u8));
        }
        let landmarks = [(161.0, 184.0), (223.0, 184.0), (192.0, 220.0), (167.0, 256.0), (218.0, 256.0)];
        WideFace {
            picture: Picture::from_rgb(WIDE_SIDE, WIDE_SIDE, &rgb),
            landmarks: landmarks.map(|(x, y)| Point { x, y }),
        }
    }

    fn gradient() -> Picture {
        let rgb: Vec<u8> =
            (0..40 * 30).flat_map(|at| [(at % 40) as u8 * 5, (at / 40) as u8 * 7, 9]).collect();
        Picture::from_rgb(40, 30, &rgb)
    }

    #[test]
    fn the_identity_changes_nothing_and_a_shift_shifts() {
        let picture = gradient();
        assert_eq!(picture.warped(40, 30, &Similarity { a: 1.0, b: 0.0, tx: 0.0, ty: 0.0 }), picture);
        let shift = Similarity::about(Point::default(), 0.0, 1.0, Point { x: 2.0, y: 1.0 });
        assert_eq!(picture.warped(40, 30, &shift).pixels[0], picture.pixels[42]);
        assert_eq!(picture.clone().mirrored().mirrored(), picture);
    }

    #[test]
    fn coarsening_and_blur_keep_a_flat_surface_and_take_detail() {
        let flat = gradient().map(|_| [50.0; 3]);
        let near = |a: &Picture, b: &Picture| {
            a.pixels.iter().flatten().zip(b.pixels.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-3)
        };
        assert!(near(&flat.coarsened(0.37), &flat));
        assert!(near(&flat.clone().blurred(1.3), &flat));
        let mut dot = flat;
        dot.pixels[15 * 40 + 20] = [250.0; 3];
        assert!(dot.coarsened(0.5).pixels[15 * 40 + 20][0] < 150.0);
        assert!(dot.blurred(1.0).pixels[15 * 40 + 20][0] < 100.0);
    }

    #[test]
    fn five_points_give_back_their_similarity() {
        let from = [(30.0, 40.0), (70.0, 41.0), (50.0, 60.0), (35.0, 80.0), (66.0, 79.0)]
            .map(|(x, y)| Point { x, y });
        let moved = Similarity::about(Point { x: 50.0, y: 50.0 }, 0.3, 1.4, Point { x: 3.0, y: -2.0 });
        let found = Similarity::between(&from, &from.map(|point| moved.apply(point))).unwrap();
        for (found, expected) in
            [(found.a, moved.a), (found.b, moved.b), (found.tx, moved.tx), (found.ty, moved.ty)]
        {
            assert!((found - expected).abs() < 1e-3, "{found} {expected}");
        }
        assert_eq!(Similarity::between(&[from[0]; 5], &from), None);
    }
}
