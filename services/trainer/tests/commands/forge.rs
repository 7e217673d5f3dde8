//! A photo becomes a forgery for a trial: always the same one, and only of what has a face.

use std::path::Path;

use forensics::Frame;
use media::{DecodeLimits, decode};

use crate::{portrait, root, said, trainer, word};

/// The forgery's bytes.
fn forged(photo: &Path, out: &Path, more: &[&str]) -> Vec<u8> {
    let output = trainer(&[&["forge", word(photo), "--out", word(out)], more].concat());
    assert!(output.status.success(), "{}", said(&output));
    std::fs::read(out).expect("it is written")
}

fn refused(photo: &Path, out: &Path, more: &[&str]) -> String {
    let output = trainer(&[&["forge", word(photo), "--out", word(out)], more].concat());
    assert!(!output.status.success() && !out.exists(), "{}", said(&output));
    said(&output)
}

fn pixels(bytes: &[u8]) -> Frame {
    decode(bytes, &DecodeLimits::default()).expect("it is a picture")
}

/// Mean absolute difference of the rectangle `[left, top, right, bottom]`, in steps of 255.
fn difference(a: &Frame, b: &Frame, [left, top, right, bottom]: [u32; 4]) -> f64 {
    let places = (top..bottom).flat_map(|y| (left..right).map(move |x| (x, y)));
    let steps = places.flat_map(|(x, y)| {
        let (a, b) = (a.pixel(x, y), b.pixel(x, y));
        std::array::from_fn::<_, 3, _>(|channel| f64::from(a[channel].abs_diff(b[channel])))
    });
    steps.sum::<f64>() / f64::from(3 * (right - left) * (bottom - top))
}

#[test]
fn the_same_photo_seed_and_number_give_the_same_forgery() {
    let folder = tempfile::tempdir().unwrap();
    let (out, donor) = (folder.path().join("deeper/forged.png"), folder.path().join("donor.png"));
    let astronaut = root().join(".deps/samples/astronaut.png");
    let first = forged(&astronaut, &out, &["--manipulation", "regional", "--number", "3"]);
    assert_eq!(first, forged(&astronaut, &out, &["--manipulation", "regional", "--number", "3"]));
    assert_ne!(first, forged(&astronaut, &out, &["--manipulation", "regional", "--number", "4"]));
    assert_ne!(
        first,
        forged(&astronaut, &out, &["--manipulation", "regional", "--number", "3", "--seed", "2"])
    );

    std::fs::write(&donor, portrait(1)).unwrap();
    let swapped = ["--manipulation", "swapped", "--donor", word(&donor)];
    let authentic = pixels(&std::fs::read(&astronaut).unwrap());
    let swap = pixels(&forged(&astronaut, &out, &swapped));
    // Her face is about (170, 60) to (275, 190); the flag is far from it.
    let (face, flag) = ([190, 80, 250, 180], [0, 300, 100, 500]);
    assert!(difference(&authentic, &swap, face) > 2.0, "the face is another");
    assert_eq!(difference(&authentic, &swap, flag), 0.0, "a swap leaves the rest alone");
    let jpeg = pixels(&forged(&astronaut, &folder.path().join("forged.JPG"), &swapped));
    let lost = difference(&swap, &jpeg, [0, 0, 512, 512]);
    assert!(lost > 0.0 && lost < 3.0, "as a JPEG it is the same forgery with small losses, not {lost}");
}

#[test]
fn what_cannot_be_forged_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("forged.png");
    let [astronaut, coffee] =
        ["astronaut", "coffee"].map(|name| root().join(format!(".deps/samples/{name}.png")));
    for (photo, out, more, expected) in [
        (&coffee, &out, &[][..], "coffee.png: no face"),
        (&folder.path().join("nowhere.png"), &out, &[], "nowhere.png"),
        (&astronaut, &folder.path().join("forged.gif"), &[], ".png or .jpg"),
        (&astronaut, &out, &["--manipulation", "swapped"], "--donor"),
        (&astronaut, &out, &["--donor", word(&astronaut)], "--donor"),
    ] {
        let words = refused(photo, out, more);
        assert!(words.contains(expected), "{expected} is not in: {words}");
    }
    let (own, before) = (folder.path().join("own.png"), std::fs::read(&astronaut).unwrap());
    std::fs::write(&own, &before).unwrap();
    let over = trainer(&["forge", word(&own), "--out", word(&own)]);
    assert!(!over.status.success() && said(&over).contains("never written over"), "{}", said(&over));
    assert!(std::fs::read(&own).unwrap() == before, "it is as it was");
}
