//! A user's folder of photos becomes a bundle that serves, whatever else lies in the folder, and a stop changes nothing.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use models::{Bundle, DeviceConfig, TwoStream};

use crate::{command, command_on, judge, portrait, root, said, trainer, word};

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
            "--localise",
            "0.5",
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
    let card = || std::fs::read_to_string(straight.join("MODEL_CARD.md")).unwrap();
    let trained = card();
    assert!(trained.contains("CC0-1.0") && trained.contains("| as drawn | swapped"), "{trained}");
    assert!(trained.contains("--batch 2") && trained.contains("--rate 0.001"), "{trained}");
    assert_eq!(bundle.manifest.measured.len(), 1);

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
    // As if it had been killed in the middle of the validation.
    let log = folder.path().join("stopped.run/log.jsonl");
    let lines = std::fs::read_to_string(&log).unwrap();
    let (looked, others): (Vec<&str>, Vec<&str>) =
        lines.lines().partition(|line| line.contains("validation"));
    std::fs::write(&log, others.join("\n") + "\n").unwrap();
    train(&stopped, &["--resume", "--validate-every", "2"]);
    let lines = std::fs::read_to_string(&log).unwrap();
    assert!(looked.len() == 1 && lines.contains(looked[0]), "it is made up for: {looked:?} {lines}");
    assert!(lines.contains("\"localisation\":"), "{lines}");
    assert_eq!(bundle.sha256, Bundle::read(&stopped).unwrap().sha256, "2 + 2 steps are not 4");

    let (report, plots, kept) =
        (folder.path().join("report.json"), folder.path().join("plots"), folder.path().join("faces"));
    let (bundle_word, real_word) = (word(&straight), word(&real));
    let fixed = ["evaluate", bundle_word, real_word, "--draws", "2", "--faces", word(&kept), "--card"];
    let evaluate = |more: &[&str]| {
        let evaluated = trainer(&[&fixed, more].concat());
        assert!(evaluated.status.success(), "{}", said(&evaluated));
        said(&evaluated)
    };
    let words = evaluate(&["--json", word(&report), "--pictures", word(&plots)]);
    assert!(words.contains("faces are left out") && !words.contains("\n0 faces are left out"), "{words}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert!(report["rows"].as_array().unwrap().len() == 12, "{report}");
    let sheet = std::fs::read_to_string(plots.join("worst.svg")).unwrap();
    assert!(sheet.contains("data:image/jpeg") && sheet.contains("twin of"));

    let tested = card();
    assert!(tested.starts_with(&trained), "the rest of the card stays: {tested}");
    for expected in [
        "## Measured on real\n",
        "touchstone-train evaluate ",
        " --card ",
        " --draws 2",
        "(pictures/real/roc.svg)",
    ] {
        assert!(tested.contains(expected), "{expected} is not in: {tested}");
    }
    let shown = tested.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(path, _)| path);
    assert!(shown.clone().count() >= 3);
    for picture in shown {
        assert!(straight.join(picture).exists(), "{picture} is not in the bundle");
        let svg = std::fs::read_to_string(straight.join(picture)).unwrap();
        assert!(!svg.contains("data:image"), "{picture} shows somebody");
    }
    evaluate(&[]);
    assert_eq!(card().matches("## Measured on").count(), 2, "measured again, it stands there once");
    let after = Bundle::read(&straight).unwrap();
    assert_eq!((after.sha256, after.manifest.measured.len()), (bundle.sha256, 2));
    TwoStream::load(&straight, &DeviceConfig::default()).unwrap();

    let tuned = folder.path().join("tuned");
    let words = train(&tuned, &["--init", bundle_word, "--until", "1"]);
    assert!(words.contains("stopped after step 1"), "{words}");
    let resumed =
        ["train", "--real", real_word, "--out", word(&tuned), "--steps", "4", "--batch", "2", "--resume"];
    let other = trainer(&resumed);
    let begun = format!("--init: {} {} (sha256 ", bundle.manifest.name, bundle.manifest.version);
    assert!(!other.status.success(), "{}", said(&other));
    for expected in [&*begun, "there, chance here", "--localise: 0.5 there, 0.0 here"] {
        assert!(said(&other).contains(expected), "{expected} is not in: {}", said(&other));
    }
    let fixed = ["train", "--real", real_word, "--init", bundle_word, "--preset", "full", "--out"];
    let other = trainer(&[&fixed[..], &[word(&folder.path().join("other"))]].concat());
    assert!(!other.status.success() && said(&other).contains("name the bundle's preset"), "{}", said(&other));
    judge::pictures_of_ones_own(&straight, folder.path());
}

/// Of every second person a picture with a bar across the face, given as a forgery.
#[test]
fn given_forgeries_are_learned_from_beside_the_made_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (real, forged, out) =
        (folder.path().join("real"), folder.path().join("forged"), folder.path().join("out"));
    std::fs::create_dir(&real).unwrap();
    std::fs::create_dir(&forged).unwrap();
    let mut manifest = String::from("path,label,identity,manipulation\n");
    for person in 0..24 {
        let bytes = portrait(person);
        std::fs::write(real.join(format!("face-{person}.png")), &bytes).unwrap();
        if person % 2 == 0 {
            let mut picture = image::load_from_memory(&bytes).unwrap().to_rgb8();
            for (x, y) in (190..260).flat_map(|x| (150..158).map(move |y| (x, y))) {
                picture.put_pixel(x, y, image::Rgb([200, 150, 140]));
            }
            picture.save(forged.join(format!("barred-{person}.png"))).unwrap();
            manifest += &format!("forged/barred-{person}.png,forged,face-{person},barred\n");
        }
    }
    let given = folder.path().join("given.csv");
    std::fs::write(&given, manifest).unwrap();
    let fixed =
        ["train", "--real", word(&real), "--out", word(&out), "--steps", "4", "--batch", "2", "--until", "1"];
    let trained = trainer(&[&fixed[..], &["--pairs", word(&given)]].concat());
    let words = said(&trained);
    assert!(trained.status.success() && words.contains("24 people"), "{words}");
    let learned = words.lines().find(|line| line.contains(" given forgeries to learn from")).expect(&words);
    let given = learned.split(" given").next().and_then(|before| before.rsplit(' ').next());
    let given: usize = given.and_then(|given| given.parse().ok()).expect(learned);
    assert!((6..=12).contains(&given), "of 12, without those of the other sides: {learned}");
    let log = std::fs::read_to_string(folder.path().join("out.run/log.jsonl")).unwrap();
    assert!(log.contains("\"given: barred\"") && log.contains("\"swapped\""), "{log}");
    let without = trainer(&[&fixed[..], &["--resume"]].concat());
    let words = said(&without);
    assert!(
        !without.status.success()
            && words.contains("other settings (")
            && words.contains("other given forgeries)"),
        "{words}"
    );
}

#[test]
fn a_stop_while_faces_are_found_ends_it_and_keeps_them() {
    let folder = tempfile::tempdir().unwrap();
    let (real, out) = (folder.path().join("real"), folder.path().join("out"));
    std::fs::create_dir(&real).unwrap();
    photos(&real);
    let mut command = command(&["train", "--real", word(&real), "--out", word(&out), "--steps", "4"]);
    let child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("touchstone-train starts");
    let pixels = folder.path().join("out.run/faces.rgb");
    let deadline = Instant::now() + Duration::from_secs(120);
    while std::fs::metadata(&pixels).map_or(0, |file| file.len()) == 0 {
        assert!(Instant::now() < deadline, "no face was found in two minutes");
        std::thread::yield_now();
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill starts").success());
    let output = child.wait_with_output().expect("touchstone-train ends");
    let words = said(&output);
    assert_eq!(output.status.code(), Some(130), "{words}");
    assert!(words.contains("stopped: faces ") && words.contains("the same command goes on"), "{words}");
    assert!(folder.path().join("out.run/faces.unfinished.json").exists());
}

#[test]
fn a_stop_while_it_learns_keeps_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let (real, stopped, straight) =
        (folder.path().join("real"), folder.path().join("stopped"), folder.path().join("straight"));
    std::fs::create_dir(&real).unwrap();
    photos(&real);
    let train = |out: &Path, more: &[&str]| {
        let fixed = ["train", "--real", word(&real), "--out", word(out), "--steps", "400", "--batch", "1"];
        command(&[&fixed, more].concat())
    };
    // Slashes at the end are no part of a name.
    let stopped = stopped.join("");
    let mut child = train(&stopped, &[]);
    let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("touchstone-train starts");
    let log = folder.path().join("stopped.run/log.jsonl");
    let deadline = Instant::now() + Duration::from_secs(300);
    while std::fs::metadata(&log).map_or(0, |file| file.len()) == 0 {
        assert!(Instant::now() < deadline, "no line in the log in five minutes");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill starts").success());
    let output = child.wait_with_output().expect("touchstone-train ends");
    let words = said(&output);
    assert_eq!(output.status.code(), Some(130), "{words}");
    let after = words.split("stopped after step ").nth(1).and_then(|rest| rest.split(';').next());
    let after = after.expect(&words);
    let run = |out: &Path, more: &[&str]| {
        let output = train(out, more).output().expect("touchstone-train starts");
        assert!(output.status.success(), "{}", said(&output));
    };
    run(&straight, &["--until", after]);
    let checkpoint = |name: &str| {
        std::fs::read(folder.path().join(name).join("checkpoint.safetensors")).expect("it was saved")
    };
    assert!(checkpoint("stopped.run") == checkpoint("straight.run"), "{after} steps are not {after} steps");
}

#[test]
fn what_cannot_be_trained_with_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, out) = (folder.path().join("empty"), folder.path().join("out"));
    std::fs::create_dir(&empty).unwrap();
    let (empty, out) = (empty.to_str().unwrap(), out.to_str().unwrap());
    let nothing = trainer(&["train", "--real", empty, "--out", out]);
    assert!(!nothing.status.success() && said(&nothing).contains("no file in"), "{}", said(&nothing));
    let device =
        command_on("cuda:99", &["train", "--real", empty, "--out", out]).output().expect("it starts");
    assert!(!device.status.success() && said(&device).contains("cuda"), "{}", said(&device));
    for (wrong, expected) in [
        ("--batch=0", "a number from 1 on"),
        ("--rate=-1", "a number above 0"),
        ("--steps=0", "0 is not in"),
        ("--name=my model", "1 to 64 letters"),
    ] {
        let refused = trainer(&[&["train", "--real", empty, "--out", out][..], &[wrong]].concat());
        assert!(!refused.status.success() && said(&refused).contains(expected), "{}", said(&refused));
    }
}
