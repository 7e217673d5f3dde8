//! The published network's outputs, through the plain and the inference path.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use forensics::{BoundingBox, CropMode, DetectedFace, Point};
use models::two_stream::Network;
use models::{Architecture, Fusion, TwoStreamWeights};
use tch::{Device, Kind, Tensor};

#[test]
fn every_published_tensor_is_reproduced_on_every_path() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/fixtures/parity"));
    let mut report = Vec::new();
    let within = models::parity::run(folder, &mut report).unwrap();
    let report = String::from_utf8(report).unwrap();
    println!("{report}");
    assert!(within, "out of bounds:\n{report}");
    for part in ["parity-official", "parity-deepfakebench", "plain", "inference", "dual_cma1.1.samples"] {
        assert!(report.contains(part), "{part} was not compared:\n{report}");
    }
}

#[test]
fn a_folder_without_parity_files_is_an_error_and_not_a_success() {
    let folder = tempfile::tempdir().unwrap();
    let error = models::parity::run(folder.path(), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("no *.safetensors"), "{error}");
}

/// Real faces, as both crop modes see them: `[n, 256, 256, 3]` u8. They lie where the published detector found them.
fn real_crops() -> Tensor {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let folders: [PathBuf; 2] = [root.join("tests/fixtures"), root.join(".deps/samples")];
    let expected: serde_json::Value =
        serde_json::from_slice(&fs::read(folders[0].join("faces.json")).unwrap()).unwrap();
    let number = |value: &serde_json::Value| value.as_f64().unwrap() as f32;
    let limits = media::DecodeLimits {
        side_max: 8192,
        pixels_max: 40_000_000,
        bytes_max: 32 << 20,
        memory_max: 512 << 20,
        scans_max: 64,
    };
    let mut crops = Vec::new();
    for picture in expected["pictures"].as_array().unwrap() {
        let name = picture["picture"].as_str().unwrap();
        let path = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        let bytes = fs::read(path.expect("`make setup` puts the samples into .deps/samples")).unwrap();
        let frame = media::decode(&bytes, &limits).unwrap();
        for face in picture["faces"].as_array().unwrap() {
            let [left, top, right, bottom] = std::array::from_fn(|edge| number(&face["box"][edge]));
            let landmark = |index: usize| {
                let [x, y] = std::array::from_fn(|axis| number(&face["landmarks"][index][axis]));
                Point { x, y }
            };
            let face = DetectedFace {
                bounds: BoundingBox { left, top, right, bottom },
                confidence: number(&face["score"]),
                landmarks: std::array::from_fn(landmark),
            };
            for mode in [CropMode::Aligned, CropMode::Box] {
                let crop = media::crop_face(&frame, &face, mode);
                crops.push(Tensor::from_slice(&crop.pixels).view([256, 256, 3]));
            }
        }
    }
    Tensor::stack(&crops, 0)
}

/// Also where bf16 is emulated: the arithmetic is the same.
#[test]
fn bf16_judges_real_faces_as_f32_does() {
    let weights = TwoStreamWeights::seeded(Architecture::MINI, "bf16 on real faces").unwrap();
    let network = Network::new(&weights, Fusion::Official).unwrap();
    let crops = real_crops();
    assert!(crops.size()[0] >= 14, "{:?}", crops.size());
    let judge = |kind| {
        let prepared = network.prepare(Device::Cpu, kind).unwrap();
        let logits = tch::no_grad(|| prepared.forward_pixels(&crops)).unwrap().logits;
        logits.to_kind(Kind::Float).softmax(1, Kind::Float).select(1, 1)
    };
    let (exact, brief) = (judge(Kind::Float), judge(Kind::BFloat16));
    let mean = f64::try_from((&exact - &brief).abs().mean(Kind::Float)).unwrap();
    let spread = f64::try_from(exact.std(true)).unwrap();
    println!(
        "mean difference {mean:.1e} over {} crops, whose probabilities spread by {spread:.1e}",
        crops.size()[0]
    );
    assert!(spread > 0.01, "the faces are told apart at all: {spread}");
    assert!(mean <= 0.005, "{mean}");
}
