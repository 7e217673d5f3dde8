//! "Two commands": the demo judges the samples with the default model; every outcome comes for its own reason.

use std::process::Command;

use e2e::binaries::{root, standalone};

#[test]
fn the_demo_shows_a_verdict_for_every_sample() {
    let output = Command::new(standalone())
        .arg("demo")
        .arg("--face-detector")
        .arg(root().join(".deps/models/mtcnn.safetensors"))
        .arg("--samples")
        .arg(root().join(".deps/samples"))
        .current_dir(root())
        .output()
        .expect("standalone runs");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}\n{words}");
    let table: Vec<Vec<&str>> = shown
        .lines()
        .skip_while(|line| !line.starts_with("MEDIA"))
        .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
        .collect();
    let row = |sample: &str| {
        let row = table.iter().find(|row| row.first() == Some(&sample));
        row.unwrap_or_else(|| panic!("{sample} has a row:\n{shown}"))
    };
    for (sample, outcome) in [
        ("astronaut.png", "LIKELY_AUTHENTIC"),
        ("astronaut-self-blended.png", "LIKELY_FORGED"),
        ("astronaut-regional.png", "LIKELY_FORGED"),
    ] {
        assert_eq!(row(sample)[1], outcome, "{shown}");
        let numbers: Vec<f64> = row(sample)[2]
            .split(|c: char| !(c.is_ascii_digit() || c == '.'))
            .filter_map(|number| number.parse().ok())
            .collect();
        let [probability, low, high] = numbers[..] else {
            panic!("{sample} has P and its interval:\n{shown}")
        };
        assert!(0.0 <= low && low <= probability && probability <= high && high <= 1.0, "{shown}");
    }
    for (sample, outcome, reason) in [
        ("chelsea.png", "NOT_APPLICABLE", "NO_FACE"),
        ("coffee.png", "NOT_APPLICABLE", "NO_FACE"),
        ("no-picture.jpg", "NOT_APPLICABLE", "UNSUPPORTED_MEDIA"),
        ("truncated.png", "FAILED", "TRUNCATED"),
    ] {
        assert_eq!(row(sample)[1..4], [outcome, "-", reason], "{shown}");
    }
    // Tests run beside each other.
    let seconds = |line: &str| line.split_whitespace().find_map(|word| word.parse::<f64>().ok()).expect(line);
    let ready = seconds(shown.lines().find(|line| line.starts_with("Ready after")).expect("it says when"));
    let first = seconds(shown.lines().find(|line| line.contains(" s  ")).expect("verdicts as they come"));
    assert!(ready <= 30.0 && first <= 60.0, "ready after {ready} s, first verdict after {first} s");
    assert!(shown.contains("Audited: 7 references, 7 verdicts; nothing is lost"), "{shown}");
    assert!(shown.contains("make demo MEDIA=folder"), "it says how to go on:\n{shown}");
    assert!(shown.contains("(models/default): LIKELY_FORGED from"), "it says who judges, and how:\n{shown}");
    assert!(shown.contains("INCONCLUSIVE means"), "it says when it would not know:\n{shown}");
}
