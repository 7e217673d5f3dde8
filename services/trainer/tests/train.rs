//! A user's folder of photos becomes a bundle that serves, whatever else lies in the folder, and a stop changes nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use forensics::Frame;
use models::Bundle;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn trainer(arguments: &[&str]) -> Output {
    let weights = root().join(".deps/models/mtcnn.safetensors");
    assert!(weights.exists(), "{}: `make torch` makes it", weights.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_touchstone-train"));
    command.args(arguments).arg("--face-detector").arg(weights).args(["--device", "cpu", "--threads", "1"]);
    command.output().expect("touchstone-train starts")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The astronaut under a light that only this person stands in: faces that the detector finds, and no near-duplicates.
fn portrait(astronaut: &Frame, person: u32) -> Vec<u8> {
    let (width, height) = (astronaut.width(), astronaut.height());
    let (across, down) = (3.0 + (person % 6) as f32 * 0.9, 2.0 + (person / 6) as f32 * 1.2);
    let mut picture = image::RgbImage::new(width, height);
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
        let light = 1.0 + 0.35 * (u * across * 6.3 + person as f32).sin() * (v * down * 6.3).cos();
        let from = if person.is_multiple_of(2) { x } else { width - 1 - x };
        *pixel =
            image::Rgb(astronaut.pixel(from, y).map(|value| (f32::from(value) * light).min(255.0) as u8));
    }
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).expect("encoding into memory succeeds");
    bytes.into_inner()
}

/// 24 people, and what else lies in a folder.
fn photos(folder: &Path) {
    let samples = root().join(".deps/samples");
    let astronaut = std::fs::read(samples.join("astronaut.png")).expect("`make setup` fetches the samples");
    let astronaut =
        media::decode(&astronaut, &media::DecodeLimits::default()).expect("the sample is a picture");
    for person in 0..24 {
        std::fs::write(folder.join(format!("face-{person}.png")), portrait(&astronaut, person))
            .expect("a temporary folder takes it");
    }
    std::fs::copy(folder.join("face-3.png"), folder.join("copy-of-3.png"))
        .expect("a temporary folder takes it");
    std::fs::copy(samples.join("coffee.png"), folder.join("coffee.png"))
        .expect("a temporary folder takes it");
    std::fs::write(folder.join("notes.txt"), "no picture").expect("a temporary folder takes it");
}

#[test]
fn a_folder_of_photos_becomes_a_bundle_that_serves_and_a_stop_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (real, straight, stopped) =
        (folder.path().join("real"), folder.path().join("straight"), folder.path().join("stopped"));
    std::fs::create_dir(&real).unwrap();
    photos(&real);
    let train = |out: &Path, more: &[&str]| {
        let (real, out) = (real.to_str().unwrap(), out.to_str().unwrap());
        let fixed = [
            "train",
            "--real",
            real,
            "--out",
            out,
            "--steps",
            "4",
            "--batch",
            "2",
            "--f32",
            "--licence",
            "CC0-1.0",
        ];
        let output = trainer(&[&fixed, more].concat());
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let words = train(&straight, &[]);
    for expected in [
        "1 photos without a face",
        "coffee.png",
        "1 copies of another file",
        "1 unreadable files",
        "notes.txt",
    ] {
        assert!(words.contains(expected), "{expected} is not in: {words}");
    }
    let bundle = Bundle::read(&straight).unwrap();
    assert_eq!(bundle.manifest.licence, "CC0-1.0");
    let card = std::fs::read_to_string(straight.join("MODEL_CARD.md")).unwrap();
    assert!(card.contains("CC0-1.0") && card.contains("| as drawn | swapped"), "{card}");

    let words = train(&stopped, &["--until", "2"]);
    assert!(words.contains("stopped after step 2") && !stopped.exists(), "{words}");
    let refused = trainer(&[
        "train",
        "--real",
        real.to_str().unwrap(),
        "--out",
        stopped.to_str().unwrap(),
        "--steps",
        "4",
        "--batch",
        "2",
    ]);
    assert!(!refused.status.success() && said(&refused).contains("--resume"), "{}", said(&refused));
    train(&stopped, &["--resume"]);
    assert_eq!(bundle.sha256, Bundle::read(&stopped).unwrap().sha256, "2 + 2 steps are not 4");

    let report = folder.path().join("report.json");
    let evaluated = trainer(&[
        "evaluate",
        straight.to_str().unwrap(),
        real.to_str().unwrap(),
        "--draws",
        "2",
        "--json",
        report.to_str().unwrap(),
    ]);
    assert!(evaluated.status.success(), "{}", said(&evaluated));
    let words = said(&evaluated);
    assert!(words.contains("faces are left out") && !words.contains("\n0 faces are left out"), "{words}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert!(report["rows"].as_array().unwrap().len() == 12, "{report}");
}

#[test]
fn what_cannot_be_trained_with_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, out) = (folder.path().join("empty"), folder.path().join("out"));
    std::fs::create_dir(&empty).unwrap();
    let (empty, out) = (empty.to_str().unwrap(), out.to_str().unwrap());
    let nothing = trainer(&["train", "--real", empty, "--out", out]);
    assert!(!nothing.status.success() && said(&nothing).contains("no file in"), "{}", said(&nothing));
    let device = trainer(&["train", "--real", empty, "--out", out, "--device", "cuda:99"]);
    assert!(!device.status.success(), "{}", said(&device));
}
