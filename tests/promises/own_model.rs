//! "Models of your own": a folder of photos becomes a bundle, which is verified, and judges.

use std::f32::consts::TAU;
use std::path::Path;
use std::process::{Command, Output};

use e2e::binaries::{root, standalone, touchstone, touchstone_train};
use forensics::Frame;
use image::{Rgb, RgbImage};

const PEOPLE: u32 = 40;

#[test]
fn a_folder_of_photos_becomes_a_model_that_judges() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let photos = folder.path().join("photos");
    std::fs::create_dir(&photos).expect("a folder");
    let sample = std::fs::read(root().join(".deps/samples/astronaut.png")).expect("`make setup` fetches it");
    let sample = media::decode(&sample, &media::DecodeLimits::default()).expect("a picture");
    for person in 0..PEOPLE {
        photo(&sample, person).save(photos.join(format!("face-{person}.jpg"))).expect("a photo");
    }
    let detector = root().join(".deps/models/mtcnn.safetensors");
    let mut train = Command::new(touchstone_train());
    train.args(["train", "--preset", "mini", "--steps", "2", "--batch", "2", "--device", "cpu"]);
    train
        .args(["--name", "of-my-own", "--real", "photos", "--out", "mine", "--face-detector"])
        .arg(&detector);
    let words = done(&mut train, folder.path());
    let faces = words.lines().find_map(|line| line.strip_suffix(" faces")?.parse::<usize>().ok());
    let faces = faces.filter(|faces| *faces > 30).expect(&words);

    let words = done(Command::new(touchstone()).args(["model", "verify", "mine"]), folder.path());
    assert!(words.contains("reproduces the golden vectors"), "{words}");

    let mut demo = Command::new(standalone());
    demo.args(["demo", "--model", "mine", "--media", "photos", "--face-detector"]).arg(&detector);
    let shown = done(&mut demo, folder.path());
    assert!(shown.contains("of-my-own"), "it says who judges:\n{shown}");
    let judged = |row: &&str| {
        row.starts_with("face-") && ["LIKELY_", "INCONCLUSIVE"].iter().any(|outcome| row.contains(outcome))
    };
    assert_eq!(shown.lines().filter(judged).count(), faces, "{shown}");
}

/// What a command says that must succeed in `folder`.
fn done(command: &mut Command, folder: &Path) -> String {
    let Output { status, stdout, stderr } = command.current_dir(folder).output().expect("it starts");
    let words = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(status.success(), "{command:?}: {words}");
    words
}

/// The astronaut in a light of this person's own: a face that the detector finds, and no near-duplicate of another's.
fn photo(sample: &Frame, person: u32) -> RgbImage {
    let waves = [3.0 + (person % 7) as f32 * 0.9, 2.0 + (person / 7) as f32 * 1.2];
    RgbImage::from_fn(sample.width(), sample.height(), |x, y| {
        let (u, v) = (x as f32 / sample.width() as f32, y as f32 / sample.height() as f32);
        let light = 1.0 + 0.35 * (TAU * waves[0] * u + person as f32).sin() * (TAU * waves[1] * v).cos();
        let from = if person.is_multiple_of(2) { x } else { sample.width() - 1 - x };
        Rgb(sample.pixel(from, y).map(|value| (f32::from(value) * light).min(255.0) as u8))
    })
}
