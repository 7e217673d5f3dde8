//! "The default model": it comes with the repository, as it was written, small, and with its card.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::binaries::{root, touchstone};

/// Everybody who clones the repository fetches it.
const BYTES_MAX: u64 = 12_000_000;

#[test]
fn the_default_model_is_whole_small_and_calibrated() {
    let folder = root().join("models/default");
    let said = |subcommand: &str| {
        let output =
            Command::new(touchstone()).args(["model", subcommand]).arg(&folder).output().expect("it runs");
        let words = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{subcommand}: {words}");
        words
    };
    assert!(said("verify").contains("reproduces the golden vectors"));
    let manifest = said("inspect");
    for fact in [
        "sigmoid(",
        "forged at or above",
        "Apache-2.0",
        "mtcnn-facenet-2.6.0",
        "AUC self-blended",
        "false alarms",
    ] {
        assert!(manifest.contains(fact), "{fact} is not in:\n{manifest}");
    }
    let bytes = bytes(&folder);
    assert!(bytes <= BYTES_MAX, "{}: {bytes} bytes", folder.display());
    let card = fs::read_to_string(folder.join("MODEL_CARD.md")).expect("a model has a card");
    assert!(card.contains("## What it is not"), "{card}");
}

/// Of all files in a folder, the card's pictures among them.
fn bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("it is there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let size = |path: &Path| path.metadata().expect("it is a file").len();
    paths.map(|path| if path.is_dir() { bytes(&path) } else { size(&path) }).sum()
}
