//! Holds the face detector to expected detections: `faces --weights FILE JSON FOLDER[:FOLDER…]`.
//!
//! For each picture of the JSON, one line with the counts, the least intersection over union and the largest landmark
//! distance of matched faces. The exit status is not zero if any picture is out of bounds.
#![allow(clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use forensics::{BoundingBox, DetectedFace, FaceDetector, Frame};
use media::DecodeLimits;
use models::face_detector::Mtcnn;
use serde::Deserialize;

/// Least intersection over union of a box with the expected one.
const IOU_MIN: f32 = 0.9;
/// Most distance of a landmark from the expected one, in pixels: decoders differ.
const LANDMARK_PIXELS_MAX: f32 = 3.0;

#[derive(Deserialize)]
struct Expected {
    detector: String,
    pictures: Vec<Picture>,
}

#[derive(Deserialize)]
struct Picture {
    picture: String,
    size: [u32; 2],
    faces: Vec<Face>,
}

#[derive(Deserialize)]
struct Face {
    #[serde(rename = "box")]
    bounds: [f32; 4],
    landmarks: [[f32; 2]; 5],
}

/// Far beyond any picture of the list.
const LIMITS: DecodeLimits = DecodeLimits {
    side_max: 8192,
    pixels_max: 40_000_000,
    bytes_max: 32 << 20,
    memory_max: 512 << 20,
    scans_max: 64,
};

/// How a picture's faces compare with the expected ones.
struct Comparison {
    expected: usize,
    found: usize,
    iou_least: f32,
    landmark_pixels_most: f32,
}

fn main() -> Result<ExitCode> {
    models::prepare_process();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [flag, weights, json, folders] = arguments.as_slice() else {
        bail!("usage: faces --weights FILE JSON FOLDER[:FOLDER…]");
    };
    if flag != "--weights" {
        bail!("usage: faces --weights FILE JSON FOLDER[:FOLDER…]");
    }
    let folders: Vec<PathBuf> = folders.split(':').map(PathBuf::from).collect();
    let text = fs::read_to_string(json).with_context(|| format!("cannot read {json}"))?;
    let expected: Expected =
        serde_json::from_str(&text).with_context(|| format!("{json} is not as expected"))?;
    let mut detector = Mtcnn::load(Path::new(weights), &models::DeviceConfig::default())?;
    println!("{} against {}", detector.name(), expected.detector);
    let mut outside = 0;
    for picture in &expected.pictures {
        let frame = decode(&folders, picture)?;
        let found = detector.detect(&[&frame])?.pop().context("a detector answers for each frame")?;
        let comparison = compare(&picture.faces, &found);
        let verdict = if comparison.is_within() { "ok" } else { "OUT OF BOUNDS" };
        println!("{:<40} {comparison} {verdict}", picture.picture);
        outside += usize::from(!comparison.is_within());
    }
    let total = expected.pictures.len();
    println!("{} of {total} pictures within bounds", total - outside);
    if total == 0 {
        bail!("{json} names no picture");
    }
    Ok(if outside == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn decode(folders: &[PathBuf], picture: &Picture) -> Result<Frame> {
    let name = &picture.picture;
    let path = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    let path = path.with_context(|| format!("{name} is in none of the folders"))?;
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let frame = media::decode(&bytes, &LIMITS).with_context(|| name.clone())?;
    if [frame.width(), frame.height()] != picture.size {
        bail!("{name} is {}×{}, expected {:?}", frame.width(), frame.height(), picture.size);
    }
    Ok(frame)
}

/// Pairs each expected face with the found one that overlaps it most.
fn compare(expected: &[Face], found: &[DetectedFace]) -> Comparison {
    let mut left: Vec<&DetectedFace> = found.iter().collect();
    let mut comparison = Comparison {
        expected: expected.len(),
        found: found.len(),
        iou_least: 1.0,
        landmark_pixels_most: 0.0,
    };
    for face in expected {
        let [left_edge, top, right, bottom] = face.bounds;
        let bounds = BoundingBox { left: left_edge, top, right, bottom };
        let iou = |index: &usize| left[*index].bounds.iou(&bounds);
        let Some(nearest) = (0..left.len()).max_by(|one, other| iou(one).total_cmp(&iou(other))) else {
            comparison.iou_least = 0.0;
            break;
        };
        comparison.iou_least = comparison.iou_least.min(iou(&nearest));
        let nearest = left.swap_remove(nearest);
        for (ours, theirs) in nearest.landmarks.iter().zip(&face.landmarks) {
            let distance = (ours.x - theirs[0]).hypot(ours.y - theirs[1]);
            comparison.landmark_pixels_most = comparison.landmark_pixels_most.max(distance);
        }
    }
    comparison
}

impl Comparison {
    fn is_within(&self) -> bool {
        self.found == self.expected
            && self.iou_least >= IOU_MIN
            && self.landmark_pixels_most <= LANDMARK_PIXELS_MAX
    }
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "faces {}/{}  IoU {:.4}  landmarks {:.3} px",
            self.found, self.expected, self.iou_least, self.landmark_pixels_most
        )
    }
}
