//! The three stages, over frames of one size.

use std::collections::BTreeMap;

use forensics::{BoundingBox, DetectedFace, Frame, Point};
use tch::{Device, TchError, Tensor};

use super::area::{Picture, Region, Resampler, Size};
use super::boxes::{self, Candidate};
use super::networks::{
    ONET_NUMBERS, ONET_SIDE, ONet, PNET_NUMBERS, PNet, RNET_NUMBERS, RNET_SIDE, RNet, probability,
};

/// Frames in one call of [`Cascade::detect`]; more gain nothing (measured 2026-11-24 at 720p).
pub(super) const FRAMES_MAX: usize = 16;

/// Faces smaller than this, in pixels, are not looked for: 40 px leave a crop of 256 px little to judge.
const FACE_MIN: f64 = 40.0;
/// P-Net's cell, in pixels of the shrunken frame.
const CELL: f64 = 12.0;
/// Each level of the pyramid against the one before it: half the area, as published.
const FACTOR: f64 = 0.709;
/// Least probability of a face after each stage, as published.
const THRESHOLDS: [f32; 3] = [0.6, 0.7, 0.7];
/// Most overlap of two boxes in a level, in a frame, and after O-Net (over the smaller), as published.
const OVERLAP_LEVEL: f32 = 0.5;
const OVERLAP: f32 = 0.7;
/// Proposals of one frame at one level, and of all levels, that are looked at, the best first. Pictures have some
/// hundreds; without a bound a picture of noise with 40 megapixels would take minutes (chosen).
const PROPOSALS_MAX: usize = 8192;
/// Places of P-Net's input in one call: what fits the caches of a core beside the first layer's output (measured
/// 2026-11-24).
const PIXELS_PER_RUN: usize = 1 << 17;
/// Crops in one call of R-Net and O-Net (measured 2026-11-24: no gain beyond).
const CROPS_PER_RUN: usize = 64;

/// The networks and the buffers between them.
pub(super) struct Cascade {
    pnet: PNet,
    rnet: RNet,
    onet: ONet,
    resampler: Resampler,
    input: Vec<f32>,
}

/// A level of the pyramid.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Level {
    scale: f64,
    size: Size,
}

impl Cascade {
    pub(super) fn new(weights: &BTreeMap<String, Tensor>, device: Device) -> Result<Self, TchError> {
        Ok(Self {
            pnet: PNet::new(weights, device)?,
            rnet: RNet::new(weights, device)?,
            onet: ONet::new(weights, device)?,
            resampler: Resampler::default(),
            input: Vec::new(),
        })
    }

    /// The faces of each frame, most confident first. All frames have the size of the first.
    pub(super) fn detect(&mut self, frames: &[&Frame]) -> Result<Vec<Vec<DetectedFace>>, TchError> {
        let proposals = self.propose(frames)?;
        let refined = self.refine(frames, proposals)?;
        self.decide(frames, refined)
    }

    /// P-Net over the pyramid: square boxes for each frame.
    fn propose(&mut self, frames: &[&Frame]) -> Result<Vec<Vec<BoundingBox>>, TchError> {
        let mut candidates = vec![Vec::new(); frames.len()];
        let Some(first) = frames.first() else { return Ok(Vec::new()) };
        for level in pyramid(first.width() as usize, first.height() as usize) {
            let frames_per_run = (PIXELS_PER_RUN / (level.size.height * level.size.width)).max(1);
            let places = PNet::places(level.size);
            for (run, part) in frames.chunks(frames_per_run).enumerate() {
                self.input.clear();
                for frame in part {
                    let picture = picture(frame);
                    self.resampler.append(picture, whole(frame), level.size, &mut self.input);
                }
                let answers = self.pnet.run(&self.input, level.size)?;
                let per_frame = answers.chunks_exact(places.height * places.width * PNET_NUMBERS);
                for (found, answers) in candidates[run * frames_per_run..].iter_mut().zip(per_frame) {
                    let cells = best(cells(answers, places.width, level.scale as f32));
                    found.extend(boxes::suppress_by_union(cells, OVERLAP_LEVEL));
                }
            }
        }
        let merged = |found| {
            let kept = boxes::suppress_by_union(best(found), OVERLAP);
            kept.iter().map(|face| boxes::squared(&boxes::shifted(&face.bounds, face.shift))).collect()
        };
        Ok(candidates.into_iter().map(merged).collect())
    }

    /// R-Net over the proposals: fewer square boxes for each frame.
    fn refine(
        &mut self,
        frames: &[&Frame],
        proposals: Vec<Vec<BoundingBox>>,
    ) -> Result<Vec<Vec<BoundingBox>>, TchError> {
        let mut refined = vec![Vec::new(); frames.len()];
        let crops = crops(frames, &proposals);
        for run in crops.chunks(CROPS_PER_RUN) {
            self.cut(frames, run, RNET_SIDE);
            let answers = self.rnet.run(&self.input)?;
            for (crop, answer) in run.iter().zip(answers.chunks_exact(RNET_NUMBERS)) {
                let score = probability(answer);
                if score > THRESHOLDS[1] {
                    let shift = [answer[2], answer[3], answer[4], answer[5]];
                    refined[crop.frame].push(Candidate { bounds: crop.bounds, score, shift });
                }
            }
        }
        let merged = |found| {
            let kept = boxes::suppress_by_union(found, OVERLAP);
            kept.iter()
                .map(|face| boxes::squared(&boxes::shifted_inclusive(&face.bounds, face.shift)))
                .collect()
        };
        Ok(refined.into_iter().map(merged).collect())
    }

    /// O-Net over what is left: the faces.
    fn decide(
        &mut self,
        frames: &[&Frame],
        refined: Vec<Vec<BoundingBox>>,
    ) -> Result<Vec<Vec<DetectedFace>>, TchError> {
        let mut faces = vec![Vec::new(); frames.len()];
        let crops = crops(frames, &refined);
        for run in crops.chunks(CROPS_PER_RUN) {
            self.cut(frames, run, ONET_SIDE);
            let answers = self.onet.run(&self.input)?;
            for (crop, answer) in run.iter().zip(answers.chunks_exact(ONET_NUMBERS)) {
                let confidence = probability(answer);
                if confidence > THRESHOLDS[2] {
                    faces[crop.frame].push(face(&crop.bounds, answer, confidence));
                }
            }
        }
        let overlap =
            |one: &DetectedFace, other: &DetectedFace| boxes::over_smaller(&one.bounds, &other.bounds);
        let merged = |found| boxes::suppress(found, |face: &DetectedFace| face.confidence, overlap, OVERLAP);
        Ok(faces.into_iter().map(merged).collect())
    }

    /// Fills the input with crops, `[n, side, side, 3]`.
    fn cut(&mut self, frames: &[&Frame], crops: &[Crop], side: usize) {
        self.input.clear();
        for crop in crops {
            let size = Size { height: side, width: side };
            self.resampler.append(picture(frames[crop.frame]), crop.region, size, &mut self.input);
        }
    }
}

/// A box of a frame that covers at least one pixel.
struct Crop {
    frame: usize,
    bounds: BoundingBox,
    region: Region,
}

fn crops(frames: &[&Frame], boxes_of: &[Vec<BoundingBox>]) -> Vec<Crop> {
    let crop = |frame: usize, bounds: BoundingBox| {
        let (width, height) = (frames[frame].width() as usize, frames[frame].height() as usize);
        boxes::pixels(&bounds, width, height).map(|region| Crop { frame, bounds, region })
    };
    let each = boxes_of.iter().enumerate();
    each.flat_map(|(frame, all)| all.iter().filter_map(move |&bounds| crop(frame, bounds))).collect()
}

fn picture(frame: &Frame) -> Picture<'_> {
    Picture { rgb: frame.rgb(), width: frame.width() as usize }
}

fn whole(frame: &Frame) -> Region {
    Region { left: 0, top: 0, width: frame.width() as usize, height: frame.height() as usize }
}

/// Scales at which a face of [`FACE_MIN`] and more fills one cell, down to where the frame itself is one cell.
fn pyramid(width: usize, height: usize) -> Vec<Level> {
    let mut scale = CELL / FACE_MIN;
    let mut side = width.min(height) as f64 * scale;
    let mut levels = Vec::new();
    while side >= CELL {
        let shrunk = |side: usize| (side as f64 * scale + 1.0) as usize;
        levels.push(Level { scale, size: Size { height: shrunk(height), width: shrunk(width) } });
        scale *= FACTOR;
        side *= FACTOR;
    }
    levels
}

/// The cells of P-Net's grid that may hold a face, in reading order, in pixels of the frame.
fn cells(answers: &[f32], width: usize, scale: f32) -> Vec<Candidate> {
    let mut found = Vec::new();
    for (place, answer) in answers.chunks_exact(PNET_NUMBERS).enumerate() {
        // Nearly all places hold none; below even odds there is no need for exponentials.
        if answer[1] < answer[0] {
            continue;
        }
        let score = probability(answer);
        if score >= THRESHOLDS[0] {
            let (x, y) = ((place % width) as f32, (place / width) as f32);
            let start = |cell: f32| ((2.0 * cell + 1.0) / scale).floor();
            let end = |cell: f32| ((2.0 * cell + CELL as f32) / scale).floor();
            let bounds = BoundingBox { left: start(x), top: start(y), right: end(x), bottom: end(y) };
            found.push(Candidate { bounds, score, shift: [answer[2], answer[3], answer[4], answer[5]] });
        }
    }
    found
}

/// At most [`PROPOSALS_MAX`] of them, the best; in their old order as long as they are fewer.
fn best(mut found: Vec<Candidate>) -> Vec<Candidate> {
    if found.len() > PROPOSALS_MAX {
        found.sort_by(|one, other| other.score.total_cmp(&one.score));
        found.truncate(PROPOSALS_MAX);
    }
    found
}

fn face(bounds: &BoundingBox, answer: &[f32], confidence: f32) -> DetectedFace {
    let (width, height) = (bounds.right - bounds.left + 1.0, bounds.bottom - bounds.top + 1.0);
    let landmark = |index: usize| Point {
        x: width * answer[6 + index] + bounds.left - 1.0,
        y: height * answer[11 + index] + bounds.top - 1.0,
    };
    DetectedFace {
        bounds: boxes::shifted_inclusive(bounds, [answer[2], answer[3], answer[4], answer[5]]),
        landmarks: std::array::from_fn(landmark),
        confidence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pyramid_is_the_published_one() {
        let sizes: Vec<(usize, usize)> =
            pyramid(1280, 720).iter().map(|level| (level.size.height, level.size.width)).collect();
        let expected =
            [(217, 385), (154, 273), (109, 194), (77, 137), (55, 98), (39, 69), (28, 49), (20, 35), (14, 25)];
        assert_eq!(sizes, expected);
        assert!(pyramid(39, 1000).is_empty(), "too small for any face");
        assert_eq!(pyramid(40, 40).len(), 1);
    }

    #[test]
    fn a_grid_has_as_many_places_as_the_network_gives() {
        for side in 12..40 {
            let size = Size { height: side, width: side + 1 };
            let after = |side: usize| {
                let pooled = (side - 2).div_ceil(2);
                pooled - 4
            };
            assert_eq!(PNet::places(size), Size { height: after(side), width: after(side + 1) });
        }
    }
}
