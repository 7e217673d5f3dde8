//! A user's folder of photos becomes a bundle that serves, whatever else lies in the folder, and a stop changes nothing.

use std::path::Path;

use models::Bundle;

use crate::{portrait, root, said, trainer};

/// 24 people, and what else lies in a folder.
fn photos(folder: &Path) {
    for person in 0..24 {
        std::fs::write(folder.join(format!("face-{person}.png")), portrait(person))
            .expect("a temporary folder takes it");
    }
    std::fs::copy(folder.join("face-3.png"), folder.join("copy-of-3.png"))
        .expect("a temporary folder takes it");
    std::fs::copy(root().join(".deps/samples/coffee.png"), folder.join("coffee.png"))
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
