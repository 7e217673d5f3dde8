//! Where a forgery is pasted: soft shapes laid over a face by its five landmarks.

use std::f32::consts::TAU;

use forensics::Point;

use crate::chance::Draw;
use crate::picture::Picture;

/// A face's own frame: origin between eyes and mouth, `down` from the eyes to the mouth, lengths in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FaceFrame {
    eyes: Point,
    mouth: Point,
    /// Unit vector from the eyes to the mouth.
    down: Point,
    /// From the eyes to the mouth.
    height: f32,
    /// From eye to eye, or what a face of that height has if it looks aside.
    width: f32,
}

/// Which part of a face is exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Region {
    Face,
    Eyes,
    Mouth,
    Half,
}

/// From the eyes to the mouth a face measures about as much as from eye to eye: the template's proportions.
const WIDTH_TO_HEIGHT: f32 = 0.87;
#[cfg(test)]
/// No mask reaches further from the face's middle than this many face heights (a test holds it to that).
pub(crate) const REACH: f32 = 2.1;

impl FaceFrame {
    /// `None` where eyes and mouth are one point.
    pub(crate) fn of(landmarks: &[Point; 5]) -> Option<Self> {
        let between = |a: Point, b: Point| Point { x: (a.x + b.x) / 2.0, y: (a.y + b.y) / 2.0 };
        let [left, right, _, mouth_left, mouth_right] = *landmarks;
        let (eyes, mouth) = (between(left, right), between(mouth_left, mouth_right));
        let height = (mouth.x - eyes.x).hypot(mouth.y - eyes.y);
        if !(height.is_finite() && height > 1.0) {
            return None;
        }
        let down = Point { x: (mouth.x - eyes.x) / height, y: (mouth.y - eyes.y) / height };
        let apart = (right.x - left.x).hypot(right.y - left.y);
        Some(Self {
            eyes,
            mouth,
            down,
            height,
            width: apart.clamp(0.7 * WIDTH_TO_HEIGHT * height, 1.3 * height),
        })
    }

    /// Between eyes and mouth.
    pub(crate) fn centre(&self) -> Point {
        Point { x: (self.eyes.x + self.mouth.x) / 2.0, y: (self.eyes.y + self.mouth.y) / 2.0 }
    }

    /// From the eyes to the mouth, in pixels.
    pub(crate) fn height(&self) -> f32 {
        self.height
    }

    /// The place `across` and `along` pixels from `origin`, along the face's own axes.
    fn place(&self, origin: Point, across: f32, along: f32) -> Point {
        let (dx, dy) = (self.down.x, self.down.y);
        Point { x: origin.x + across * dy + along * dx, y: origin.y - across * dx + along * dy }
    }
}

/// Weights in [0, 1] over `picture`, soft at the edge: how much of the forgery each pixel gets.
pub(crate) fn mask(picture: &Picture, face: &FaceFrame, region: Region, draw: &mut Draw) -> Vec<f32> {
    let (h, w) = (face.height, face.width);
    let shape = match region {
        Region::Face | Region::Half => {
            let centre = face.place(face.centre(), draw.around_zero(0.08 * w), h * draw.within(-0.2, 0.1));
            Shape::new(centre, w * draw.within(0.85, 1.2), h * draw.within(1.0, 1.45), draw)
        }
        Region::Eyes => {
            let centre = face.place(face.eyes, 0.0, draw.around_zero(0.08 * h));
            Shape::new(centre, w * draw.within(0.75, 1.05), h * draw.within(0.25, 0.5), draw)
        }
        Region::Mouth => {
            let centre = face.place(face.mouth, 0.0, draw.around_zero(0.08 * h));
            Shape::new(centre, w * draw.within(0.45, 0.8), h * draw.within(0.25, 0.5), draw)
        }
    };
    let half = (region == Region::Half).then(|| HalfPlane::new(face, &shape, draw));
    let mut weights = vec![0.0; picture.width() * picture.height()];
    let reach = shape.reach();
    let rows = bounds(shape.centre.y, reach, picture.height());
    for y in rows {
        for x in bounds(shape.centre.x, reach, picture.width()) {
            let point = Point { x: x as f32, y: y as f32 };
            let within = shape.weight(face, point);
            let side = half.as_ref().map_or(1.0, |half| half.weight(point));
            weights[y * picture.width() + x] = within * side;
        }
    }
    weights
}

fn bounds(centre: f32, reach: f32, side: usize) -> std::ops::Range<usize> {
    // A cast from float to integer saturates, so that a face beyond the edge gives an empty range.
    ((centre - reach).floor() as usize).min(side)..((centre + reach).ceil() as usize + 1).min(side)
}

/// A closed curve around a centre, given by its radius in steps of an angle, and how soft its edge is.
struct Shape {
    centre: Point,
    /// Half axes across and along the face, in pixels.
    axes: [f32; 2],
    /// Factors of the ellipse's radius; straight lines between them make a polygon, smooth ones a blob.
    radii: Vec<f32>,
    smooth: bool,
    /// Width of the edge as a share of the radius.
    softness: f32,
}

impl Shape {
    fn new(centre: Point, across: f32, along: f32, draw: &mut Draw) -> Self {
        let corners = 6 + draw.below(11);
        let roughness = draw.within(0.0, 0.16);
        let radii = (0..corners).map(|_| 1.0 + draw.around_zero(roughness)).collect();
        Self {
            centre,
            axes: [across, along],
            radii,
            smooth: draw.chance(0.6),
            softness: draw.within(0.02, 1.0).powi(2) * 0.45 + 0.015,
        }
    }

    /// No weight is set further from the centre.
    fn reach(&self) -> f32 {
        self.axes[0].max(self.axes[1]) * 1.16
    }

    /// 1 inside, 0 on the curve and outside, falling smoothly over the edge's width.
    fn weight(&self, face: &FaceFrame, point: Point) -> f32 {
        let (x, y) = (point.x - self.centre.x, point.y - self.centre.y);
        let across = (x * face.down.y - y * face.down.x) / self.axes[0];
        let along = (x * face.down.x + y * face.down.y) / self.axes[1];
        let radius = across.hypot(along);
        if radius < 1e-6 {
            return 1.0;
        }
        let place = (along.atan2(across) / TAU).rem_euclid(1.0) * self.radii.len() as f32;
        let (corner, between) = (place as usize % self.radii.len(), place.fract());
        let next = (corner + 1) % self.radii.len();
        let between = if self.smooth { smoothstep(between) } else { between };
        let edge = self.radii[corner] + (self.radii[next] - self.radii[corner]) * between;
        smoothstep((edge - radius) / (self.softness * edge))
    }
}

/// One side of a soft line through a shape.
struct HalfPlane {
    origin: Point,
    normal: Point,
    softness: f32,
}

impl HalfPlane {
    /// Left, right, upper or lower half, the line a little turned.
    fn new(face: &FaceFrame, shape: &Shape, draw: &mut Draw) -> Self {
        let turn = TAU / 4.0 * draw.below(4) as f32 + draw.around_zero(0.35);
        let (sin, cos) = turn.sin_cos();
        Self {
            origin: shape.centre,
            normal: Point {
                x: face.down.x * cos - face.down.y * sin,
                y: face.down.x * sin + face.down.y * cos,
            },
            softness: face.height * draw.within(0.03, 0.3),
        }
    }

    fn weight(&self, point: Point) -> f32 {
        let distance = (point.x - self.origin.x) * self.normal.x + (point.y - self.origin.y) * self.normal.y;
        smoothstep(distance / self.softness + 0.5)
    }
}

/// 0 below 0, 1 above 1, `3t² − 2t³` between.
fn smoothstep(t: f32) -> f32 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chance::Purpose;

    fn landmarks() -> [Point; 5] {
        [(145.0, 168.0), (207.0, 168.0), (176.0, 204.0), (151.0, 240.0), (202.0, 240.0)]
            .map(|(x, y)| Point { x, y })
    }

    proptest! {
        #[test]
        fn every_mask_lies_in_the_faces_neighbourhood_and_is_not_empty(index in any::<u64>(), kind in 0usize..4) {
            let region = [Region::Face, Region::Eyes, Region::Mouth, Region::Half][kind];
            let picture = Picture::from_rgb(352, 352, &vec![0; 352 * 352 * 3]);
            let face = FaceFrame::of(&landmarks()).unwrap();
            let weights = mask(&picture, &face, region, &mut Draw::new(1, Purpose::Pair, index));
            let centre = face.centre();
            let mut sum = 0.0;
            for (at, weight) in weights.iter().enumerate() {
                prop_assert!((0.0..=1.0).contains(weight));
                let (x, y) = ((at % 352) as f32, (at / 352) as f32);
                let far = (x - centre.x).hypot(y - centre.y) > REACH * face.height();
                prop_assert!(!far || *weight == 0.0, "{weight} at {x} {y}");
                sum += weight;
            }
            prop_assert!(sum > 100.0, "an empty mask: {sum}");
        }
    }

    #[test]
    fn a_mask_beyond_the_picture_is_empty_and_no_panic() {
        let picture = Picture::from_rgb(20, 20, &[0; 1200]);
        let far = landmarks().map(|Point { x, y }| Point { x: x - 900.0, y: y + 900.0 });
        let face = FaceFrame::of(&far).unwrap();
        let weights = mask(&picture, &face, Region::Face, &mut Draw::new(1, Purpose::Pair, 0));
        assert!(weights.iter().all(|weight| *weight == 0.0));
        assert_eq!(FaceFrame::of(&[Point::default(); 5]), None);
    }
}
