//! Forgeries made on the fly: a face goes in, the face and its forgery come out, both through the same losses.
//!
//! Everything is a pure function of (faces, seed, index): a stop or another number of threads changes nothing, and
//! another machine nothing but the last digits of powers and sines. Start reading at `Recipe::forge`.

mod colour;
mod degrade;
mod mask;
pub(crate) mod pairs;
mod seam;

use std::fmt;

use clap::ValueEnum;
use forensics::Point;
use serde::{Deserialize, Serialize};

use crate::chance::Draw;
use crate::picture::{Picture, Similarity, WideFace};
use colour::ColourShift;
pub(crate) use degrade::{Degradation, View, jpeg};
use mask::{FaceFrame, Region};

/// How a forgery is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Manipulation {
    /// Two differently processed copies of one face, blended (Shiohara & Yamasaki, *Detecting Deepfakes with
    /// Self-Blended Images*, CVPR 2022).
    SelfBlended,
    /// Another person's face, aligned and given the target's colours (Li et al., *Face X-ray*, CVPR 2020).
    Swapped,
    /// Either of them, in the eyes, the mouth or half of the face only.
    Regional,
}

/// A forgery and what it must be told from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Forged {
    /// The authentic twin: outside of the mask the same to the last bit. Where a self-blend processed the target, so is it;
    /// or else being sharp or soft everywhere would give the forged away.
    pub(crate) twin: Picture,
    pub(crate) picture: Picture,
}

/// What was done to make a forgery.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Recipe {
    pub(crate) manipulation: Manipulation,
    pub(crate) region: Region,
    /// How much of the forgery is mixed in at most, one of [`RATIOS`].
    pub(crate) ratio: f32,
    /// Made of another face; else of the face itself.
    pub(crate) has_donor: bool,
    poisson: bool,
}

/// Raised when a number no longer gives the sample that it gave.
pub(crate) const VERSION: u32 = 2;

/// Full strength is as likely as all others together (Shiohara & Yamasaki, their code).
const RATIOS: [f32; 6] = [0.25, 0.5, 0.75, 1.0, 1.0, 1.0];

impl Manipulation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::SelfBlended, Self::Swapped, Self::Regional];

    /// The name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SelfBlended => "self-blended",
            Self::Swapped => "swapped",
            Self::Regional => "regional",
        }
    }
}

impl fmt::Display for Manipulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Recipe {
    /// Draws how a forgery of that kind is made, of another face where it needs one. Where none is offered, a swap is a
    /// self-blend.
    pub(crate) fn drawn(manipulation: Manipulation, is_offered: bool, draw: &mut Draw) -> Self {
        let region = match manipulation {
            Manipulation::Regional => draw.one_of(&[Region::Eyes, Region::Mouth, Region::Half]),
            _ => Region::Face,
        };
        let swaps = match manipulation {
            Manipulation::SelfBlended => false,
            Manipulation::Swapped => true,
            Manipulation::Regional => draw.chance(0.5),
        };
        // A number that says nothing: without it every forgery would be another than in version 1, evaluations' too.
        draw.below(1);
        let (has_donor, poisson) = (swaps && is_offered, draw.chance(0.3));
        Self { manipulation, region, ratio: draw.one_of(&RATIOS), has_donor, poisson: poisson && has_donor }
    }

    /// The forgery of `face`; `donor` is the face that the recipe names. `None` where landmarks have no extent.
    pub(crate) fn forge(&self, face: &WideFace, donor: Option<&WideFace>, draw: &mut Draw) -> Option<Forged> {
        let frame = FaceFrame::of(&face.landmarks)?;
        let weights = mask::mask(&face.picture, &frame, self.region, draw);
        let (target, source) = match donor {
            None => self_blended(face, &frame, draw),
            Some(donor) => (face.picture.clone(), swapped(face, donor, &weights, draw)?),
        };
        let source = if self.poisson { seam::poisson(&target, &source, &weights) } else { source };
        let weights: Vec<f32> = weights.iter().map(|weight| weight * self.ratio).collect();
        let picture = target.clone().blended(&source, &weights);
        Some(Forged { twin: target, picture })
    }
}

/// Target and source: one of two copies is changed in colour and detail, and the source is moved a little.
fn self_blended(face: &WideFace, frame: &FaceFrame, draw: &mut Draw) -> (Picture, Picture) {
    let shift = ColourShift::drawn(draw);
    let coarse = draw.chance(0.5).then(|| draw.within(0.25, 0.8));
    let sharpness = draw.within(0.3, 1.0);
    let changed = |picture: Picture| match coarse {
        Some(share) => shift.apply(picture).coarsened(share),
        None => sharpened(shift.apply(picture), sharpness),
    };
    let (target, source) = match draw.chance(0.5) {
        true => (changed(face.picture.clone()), face.picture.clone()),
        false => (face.picture.clone(), changed(face.picture.clone())),
    };
    let most = 0.04 * frame.height() * 2.0;
    let moved = Similarity::about(
        frame.centre(),
        draw.around_zero(0.03),
        draw.within(0.95, 1.05),
        Point { x: draw.around_zero(most), y: draw.around_zero(most / 2.0) },
    );
    let source = source.warped(source.width(), source.height(), &moved);
    (target, source)
}

/// The donor's face where the target's is.
fn swapped(face: &WideFace, donor: &WideFace, weights: &[f32], draw: &mut Draw) -> Option<Picture> {
    let onto = Similarity::between(&face.landmarks, &donor.landmarks)?;
    let (width, height) = (face.picture.width(), face.picture.height());
    let moved = donor.picture.warped(width, height, &onto);
    let coloured =
        if draw.chance(0.85) { colour::transferred(&moved, &face.picture, weights) } else { moved };
    Some(match draw.chance(0.5) {
        // A generator's faces are often coarser than their surroundings.
        true => coloured.coarsened(draw.within(0.4, 0.9)),
        false => coloured,
    })
}

/// Unsharp mask.
fn sharpened(picture: Picture, strength: f32) -> Picture {
    let soft = picture.clone().blurred(1.0);
    let mut sharp = picture;
    for (pixel, soft) in sharp.pixels.iter_mut().zip(&soft.pixels) {
        *pixel = std::array::from_fn(|c| (pixel[c] + strength * (pixel[c] - soft[c])).clamp(0.0, 255.0));
    }
    sharp
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chance::Purpose;
    use crate::picture::WIDE_SIDE;
    use crate::picture::tests::face;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_forgery_is_a_function_of_its_draw_and_differs_from_its_twin_near_the_face_only(
            index in any::<u64>(),
            kind in 0usize..3,
        ) {
            let (target, donor) = (face(1), face(2));
            let forge = |index| {
                let mut draw = Draw::new(9, Purpose::Pair, index);
                let recipe = Recipe::drawn(Manipulation::ALL[kind], true, &mut draw);
                let donor = recipe.has_donor.then_some(&donor);
                (recipe, recipe.forge(&target, donor, &mut draw).unwrap())
            };
            let (recipe, made) = forge(index);
            prop_assert_eq!(&made, &forge(index).1);
            prop_assert!(!recipe.has_donor || kind != 0 && made.twin == target.picture);
            let middle = FaceFrame::of(&target.landmarks).unwrap();
            let mut changed = 0;
            for (at, (a, b)) in made.picture.pixels.iter().zip(&made.twin.pixels).enumerate() {
                let (x, y) = ((at % WIDE_SIDE) as f32, (at / WIDE_SIDE) as f32);
                let far = (x - middle.centre().x).hypot(y - middle.centre().y) > mask::REACH * middle.height();
                prop_assert!(!far || a == b, "a pixel far from the face changed at {x} {y}");
                changed += usize::from(a != b);
            }
            prop_assert!(changed > 100, "{changed} pixels changed");
        }
    }
}
