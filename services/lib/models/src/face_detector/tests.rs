use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use forensics::{BoundingBox, FaceDetector};
use media::DecodeLimits;

use super::*;

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

/// The published weights, converted once for all tests.
fn weights() -> &'static Path {
    static CONVERTED: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = CONVERTED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let published = |name: &str| root().join(".deps/facenet").join(name);
        let out = folder.path().join("faces/mtcnn.safetensors");
        convert(&published("pnet.pt"), &published("rnet.pt"), &published("onet.pt"), &out)
            .expect("`make setup` puts the published weights into .deps/facenet");
        (folder, out)
    });
    path
}

fn detector() -> Mtcnn {
    Mtcnn::load(weights(), &DeviceConfig { threads: 1, ..DeviceConfig::default() }).unwrap()
}

fn picture(name: &str) -> Frame {
    let folders = [root().join("tests/fixtures"), root().join(".deps/samples")];
    let path = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    let bytes = fs::read(path.expect("`make setup` puts the samples into .deps/samples")).unwrap();
    let limits = DecodeLimits {
        side_max: 8192,
        pixels_max: 40_000_000,
        bytes_max: 32 << 20,
        memory_max: 512 << 20,
        scans_max: 64,
    };
    media::decode(&bytes, &limits).unwrap()
}

/// The part of `frame` that begins at `(left, top)`.
fn part(frame: &Frame, [left, top]: [u32; 2], [width, height]: [u32; 2]) -> Frame {
    let rgb = (top..top + height).flat_map(|y| (left..left + width).flat_map(move |x| frame.pixel(x, y)));
    Frame::new(width, height, rgb.collect()).unwrap()
}

/// `facenet-pytorch` 2.6.0 itself found these faces (its own code, PyTorch 2.11, Pillow); PNG decodes alike everywhere.
#[test]
fn it_finds_what_the_published_detector_finds() {
    let text = fs::read_to_string(root().join("tests/fixtures/faces.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut detector = detector();
    let mut faces_in_all = 0;
    for picture in expected["pictures"].as_array().unwrap() {
        let name = picture["picture"].as_str().unwrap();
        let frame = self::picture(name);
        let found = detector.detect(&[&frame]).unwrap().pop().unwrap();
        let faces = picture["faces"].as_array().unwrap();
        assert_eq!(found.len(), faces.len(), "{name}");
        faces_in_all += faces.len();
        for face in faces {
            let number = |value: &serde_json::Value| value.as_f64().unwrap() as f32;
            let [left, top, right, bottom] = std::array::from_fn(|edge| number(&face["box"][edge]));
            let bounds = BoundingBox { left, top, right, bottom };
            let nearest = found
                .iter()
                .max_by(|one, other| one.bounds.iou(&bounds).total_cmp(&other.bounds.iou(&bounds)));
            let nearest = nearest.unwrap();
            assert!(nearest.bounds.iou(&bounds) > 0.999, "{name}: {:?} for {bounds:?}", nearest.bounds);
            assert!((nearest.confidence - number(&face["score"])).abs() < 1e-4, "{name}");
            for (ours, theirs) in nearest.landmarks.iter().zip(face["landmarks"].as_array().unwrap()) {
                let distance = (ours.x - number(&theirs[0])).hypot(ours.y - number(&theirs[1]));
                assert!(distance < 0.02, "{name}: {distance} px");
            }
        }
        assert!(found.windows(2).all(|pair| pair[0].confidence >= pair[1].confidence), "best first");
    }
    assert_eq!(faces_in_all, 7);
}

#[test]
fn a_batch_gives_each_frame_what_it_gets_alone() {
    let mut detector = detector();
    let group = picture("astronauts.png");
    let (face, cat) = (picture("astronaut.png"), picture("chelsea.png"));
    let other = part(&group, [640, 0], [512, 512]);
    let frames = [&face, &cat, &other, &group, &face];
    let together = detector.detect(&frames).unwrap();
    for (index, frame) in frames.iter().enumerate() {
        let alone = detector.detect(&[frame]).unwrap().pop().unwrap();
        assert_eq!(together[index].len(), alone.len(), "frame {index}");
        for (one, other) in together[index].iter().zip(&alone) {
            assert!(one.bounds.iou(&other.bounds) > 0.9999, "frame {index}");
            assert!((one.confidence - other.confidence).abs() < 1e-5, "frame {index}");
        }
    }
    assert!(detector.detect(&[]).unwrap().is_empty());
}

#[test]
fn a_crowd_is_returned_whole() {
    // The astronaut's face, halved, twenty times beside each other and ten times below.
    let astronaut = picture("astronaut.png");
    let (columns, rows, width, height) = (20, 10, 64, 80);
    let pixel = |x: u32, y: u32| {
        let (x, y) = (160 + 2 * (x % width), 36 + 2 * (y % height));
        let mean = |channel: usize| {
            let sum: u32 = [(0, 0), (1, 0), (0, 1), (1, 1)]
                .iter()
                .map(|&(dx, dy)| u32::from(astronaut.pixel(x + dx, y + dy)[channel]))
                .sum();
            (sum / 4) as u8
        };
        [mean(0), mean(1), mean(2)]
    };
    let rgb = (0..rows * height).flat_map(|y| (0..columns * width).flat_map(move |x| pixel(x, y)));
    let crowd = Frame::new(columns * width, rows * height, rgb.collect()).unwrap();
    let found = detector().detect(&[&crowd]).unwrap().pop().unwrap();
    assert!(found.len() >= 195, "{} of 200 faces", found.len());
}

#[test]
fn frames_without_room_for_a_face_have_none() {
    let mut detector = detector();
    for (width, height) in [(1, 1), (39, 39), (39, 5000), (40, 40), (41, 3000)] {
        let frame = Frame::new(width, height, vec![127; (width * height * 3) as usize]).unwrap();
        assert_eq!(detector.detect(&[&frame]).unwrap(), [vec![]], "{width}×{height}");
    }
}

#[test]
fn noise_is_neither_a_face_nor_endless_work() {
    let noise = (0..1600_u32 * 1200 * 3).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8);
    let frame = Frame::new(1600, 1200, noise.collect()).unwrap();
    assert_eq!(detector().detect(&[&frame]).unwrap(), [vec![]]);
}

#[test]
fn other_weights_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mtcnn.safetensors");
    let mut bytes = fs::read(weights()).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = Mtcnn::load(&path, &DeviceConfig::default()).err().unwrap().to_string();
    assert!(error.contains(SHA256) && error.contains("mtcnn.safetensors"), "{error}");

    let published = |name: &str| root().join(".deps/facenet").join(name);
    let out = folder.path().join("swapped.safetensors");
    let error =
        convert(&published("rnet.pt"), &published("pnet.pt"), &published("onet.pt"), &out).unwrap_err();
    assert!(matches!(error, FaceWeightsError::Digest { .. }), "{error}");
    assert!(!out.exists(), "nothing is left behind");
    let error = convert(&path, &path, &path, &out).unwrap_err().to_string();
    assert!(error.contains("not a PyTorch checkpoint"), "{error}");
}
