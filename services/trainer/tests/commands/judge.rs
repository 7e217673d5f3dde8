//! A bundle is judged and calibrated on pictures of a user's own, and a person sees what it was taught.

use std::path::Path;

use models::Bundle;

use crate::{portrait, said, trainer, word};

/// With a bundle that has learned next to nothing: which of two sets of faces it takes for the more forged nobody knows, but
/// it is one of them.
pub(crate) fn pictures_of_ones_own(bundle: &Path, folder: &Path) {
    let (one, other) = (folder.join("one"), folder.join("other"));
    for (set, people) in [(&one, 30..36), (&other, 36..42)] {
        for person in people {
            for side in ["real", "forged/pasted"] {
                let path = set.join(side).join(format!("face-{person}.png"));
                std::fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("it can be made");
            }
        }
    }
    // The first set's faces are real in one folder and forged in the other.
    for (person, [real, forged]) in
        (30..42).map(|person| (person, if person < 36 { [&one, &other] } else { [&other, &one] }))
    {
        let name = format!("face-{person}.png");
        for place in [real.join("real"), forged.join("forged/pasted")] {
            std::fs::write(place.join(&name), portrait(person)).expect("a temporary folder takes it");
        }
    }
    let evaluated = trainer(&["evaluate", word(bundle), word(&one)]);
    let words = said(&evaluated);
    assert!(evaluated.status.success() && words.contains("| untouched | pasted (6) |"), "{words}");
    assert!(words.contains("12 people, 24 pictures"), "each as it is and after JPEG 75: {words}");

    let calibrate = |data: &Path, out: &str| {
        let out = folder.join(out);
        let output =
            trainer(&["calibrate", word(bundle), word(data), "--out", word(&out), "--misses", "0.2"]);
        (output, out)
    };
    let both = [calibrate(&one, "calibrated-one"), calibrate(&other, "calibrated-other")];
    let (good, bad): (Vec<_>, Vec<_>) = both.into_iter().partition(|(output, _)| output.status.success());
    assert_eq!((good.len(), bad.len()), (1, 1), "{good:?} {bad:?}");
    let (output, out) = &bad[0];
    assert!(said(output).contains("do not rank") && !out.exists(), "{}", said(output));
    let (output, out) = &good[0];
    let calibrated = Bundle::read(out).expect("it is whole");
    assert!(said(output).contains("LIKELY_FORGED from"), "{}", said(output));
    assert_eq!(calibrated.manifest.measured.len(), 1);
    let card = std::fs::read_to_string(out.join("MODEL_CARD.md")).expect("a card");
    assert!(card.contains("CC0-1.0") && card.contains("touchstone-train calibrate "), "{card}");
    assert!(out.join("split.json").exists() && out.join("pictures/training.svg").exists());
    let known = trainer(&["evaluate", word(out), word(&one)]);
    assert!(!known.status.success() && said(&known).contains("does not know"), "{}", said(&known));
}

#[test]
fn a_person_sees_what_the_network_is_taught() {
    let folder = tempfile::tempdir().unwrap();
    let (real, sheet) = (folder.path().join("real"), folder.path().join("sheet.svg"));
    std::fs::create_dir(&real).unwrap();
    for person in 0..8 {
        std::fs::write(real.join(format!("face-{person}.png")), portrait(person)).unwrap();
    }
    let drawn = trainer(&["preview", "--real", word(&real), "--pairs", "2", "--out", word(&sheet)]);
    assert!(drawn.status.success(), "{}", said(&drawn));
    let sheet = std::fs::read_to_string(sheet).unwrap();
    assert_eq!(sheet.matches("data:image/").count(), 3 * 2 * 2, "kinds, pairs, face and forgery");
    assert!(["self-blended", "swapped", "regional"].iter().all(|kind| sheet.contains(kind)));
}
