//! Engines without a network, for tests and for measuring the pipeline alone: what they say is a known
//! function of the pixels, and their identity never passes for a real model.

use crate::detect::{DetectorError, FaceDetector, ForgeryDetector};
use crate::face::{BoundingBox, DetectedFace, Point};
use crate::frame::{CropBatch, Frame};
use crate::model::{Calibration, CropMode, DeviceClass, ModelIdentity, Precision, Preprocessing};
use crate::policy::Thresholds;
use crate::score::Logit;

/// Side of the tiles in which [`ScriptedFaceDetector`] looks for faces, in pixels.
pub const TILE: u32 = 32;

/// The name both engines answer to.
pub const NAME: &str = "scripted";

/// Scores a crop by its colours: `logit = 12 · (mean green of the face's pixels / 255 − ½)`, so that a
/// magenta face (no green) is authentic, a white one forged, and one in between unsure. Pixels that are not
/// a face's (see [`ScriptedFaceDetector`]) do not count; a crop without any is judged by all its pixels.
#[derive(Debug)]
pub struct ScriptedForgeryDetector {
    identity: ModelIdentity,
    preprocessing: Preprocessing,
    batch_max: usize,
}

impl ScriptedForgeryDetector {
    /// A detector that takes batches of up to `batch_max`.
    pub fn new(batch_max: usize) -> Self {
        let identity = ModelIdentity {
            name: NAME.to_owned(),
            version: "1".to_owned(),
            sha256: *b"scripted: a function of pixels..",
            precision: Precision::Scripted,
            device: DeviceClass::Cpu,
        };
        let preprocessing = Preprocessing { crop: CropMode::Box, face_detector: NAME.to_owned() };
        Self { identity, preprocessing, batch_max: batch_max.max(1) }
    }

    /// The logit of one crop, u8 RGB `[256, 256, 3]`; every 16th pixel is looked at.
    pub fn logit(crop: &[u8]) -> Logit {
        let (mut face, mut faces, mut all, mut pixels) = (0u64, 0u64, 0u64, 0u64);
        for pixel in crop.as_chunks::<3>().0.iter().step_by(16) {
            let is_face = is_face_colour(*pixel);
            face += u64::from(pixel[1]) * u64::from(is_face);
            faces += u64::from(is_face);
            all += u64::from(pixel[1]);
            pixels += 1;
        }
        let (sum, count) = if faces > 0 { (face, faces) } else { (all, pixels.max(1)) };
        let green = sum as f32 / count as f32;
        Logit::new(12.0 * (green / 255.0 - 0.5)).expect("a mean of bytes is finite")
    }
}

impl ForgeryDetector for ScriptedForgeryDetector {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    fn calibration(&self) -> Calibration {
        Calibration::Platt { slope: 1.0, intercept: 0.0, covariance: [0.0; 3] }
    }

    fn thresholds(&self) -> Option<Thresholds> {
        Thresholds::new(0.9, 0.1)
    }

    fn batch_max(&self) -> usize {
        self.batch_max
    }

    fn score(&mut self, batch: &CropBatch) -> Result<Vec<Logit>, DetectorError> {
        Ok((0..batch.count()).map(|index| Self::logit(batch.crop(index))).collect())
    }

    fn self_test(&mut self) -> Result<(), DetectorError> {
        Ok(())
    }
}

/// Finds painted faces: connected 32-pixel tiles whose centre is magenta to white (red and blue above 200).
#[derive(Debug, Default)]
pub struct ScriptedFaceDetector;

fn is_face_colour([red, _, blue]: [u8; 3]) -> bool {
    red > 200 && blue > 200
}

impl FaceDetector for ScriptedFaceDetector {
    fn name(&self) -> &str {
        NAME
    }

    fn batch_max(&self) -> usize {
        16
    }

    fn detect(&mut self, frames: &[&Frame]) -> Result<Vec<Vec<DetectedFace>>, DetectorError> {
        Ok(frames.iter().map(|frame| painted_faces(frame)).collect())
    }
}

fn painted_faces(frame: &Frame) -> Vec<DetectedFace> {
    let (columns, rows) = (frame.width() / TILE, frame.height() / TILE);
    let painted = |x: u32, y: u32| is_face_colour(frame.pixel(x * TILE + TILE / 2, y * TILE + TILE / 2));
    let mut left: std::collections::BTreeSet<(u32, u32)> =
        (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))).filter(|&(y, x)| painted(x, y)).collect();
    let mut faces = Vec::new();
    while let Some(first) = left.pop_first() {
        let (mut low, mut high, mut edge) = (first, first, vec![first]);
        while let Some((y, x)) = edge.pop() {
            low = (low.0.min(y), low.1.min(x));
            high = (high.0.max(y), high.1.max(x));
            let neighbours = [(y.wrapping_sub(1), x), (y + 1, x), (y, x.wrapping_sub(1)), (y, x + 1)];
            edge.extend(neighbours.into_iter().filter(|tile| left.remove(tile)));
        }
        faces.push(face_in(low, high));
    }
    faces
}

/// The face whose tiles span `low..=high`, both as (row, column).
fn face_in(low: (u32, u32), high: (u32, u32)) -> DetectedFace {
    let bounds = BoundingBox {
        left: (low.1 * TILE) as f32,
        top: (low.0 * TILE) as f32,
        right: ((high.1 + 1) * TILE) as f32,
        bottom: ((high.0 + 1) * TILE) as f32,
    };
    let at =
        |x: f32, y: f32| Point { x: bounds.left + x * bounds.width(), y: bounds.top + y * bounds.height() };
    let landmarks = [at(0.3, 0.35), at(0.7, 0.35), at(0.5, 0.55), at(0.35, 0.75), at(0.65, 0.75)];
    DetectedFace { bounds, landmarks, confidence: 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paint(faces: &[(u32, u32, [u8; 3])]) -> Frame {
        let (width, height) = (320, 256);
        let mut rgb = vec![0u8; width * height * 3];
        for &(column, row, colour) in faces {
            for y in row * TILE..(row + 2) * TILE {
                for x in column * TILE..(column + 2) * TILE {
                    let at = (y as usize * width + x as usize) * 3;
                    rgb[at..at + 3].copy_from_slice(&colour);
                }
            }
        }
        Frame::new(width as u32, height as u32, rgb).expect("sizes agree")
    }

    #[test]
    fn painted_faces_are_found_where_they_are() {
        let frame = paint(&[(1, 1, [255, 0, 255]), (6, 4, [255, 255, 255])]);
        let found = ScriptedFaceDetector.detect(&[&frame]).expect("never fails").remove(0);
        let edges: Vec<_> = found.iter().map(|f| (f.bounds.left, f.bounds.top, f.bounds.right)).collect();
        assert_eq!(edges, [(32.0, 32.0, 96.0), (192.0, 128.0, 256.0)]);
        assert_eq!(ScriptedFaceDetector.detect(&[&paint(&[])]).expect("never fails"), [vec![]]);
    }

    #[test]
    fn the_score_follows_the_green() {
        let crop = |green: u8| [255, green, 255].repeat(crate::CROP_SIDE * crate::CROP_SIDE);
        assert_eq!(ScriptedForgeryDetector::logit(&crop(0)).get(), -6.0);
        assert_eq!(ScriptedForgeryDetector::logit(&crop(255)).get(), 6.0);
    }
}
