//! "Two commands": the demo judges the samples with the real network, for the right reasons.

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
        .output()
        .expect("standalone runs");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}\n{words}");
    let line = |sample: &str| {
        let rows: Vec<&str> = shown.lines().filter(|line| line.contains(sample)).collect();
        rows.join("\n")
    };
    for (sample, outcome) in [
        ("astronaut", "MODEL_NOT_CALIBRATED"),
        ("chelsea", "NO_FACE"),
        ("coffee", "NO_FACE"),
        ("truncated", "TRUNCATED"),
        ("no-picture", "UNSUPPORTED_MEDIA"),
    ] {
        assert!(line(sample).contains(outcome), "{sample} ends as {outcome}:\n{shown}");
    }
    // The README's words; on this machine it takes 2 and 0.1 s, and tests run beside each other.
    let seconds = |line: &str| line.split_whitespace().find_map(|word| word.parse::<f64>().ok()).expect(line);
    let ready = seconds(shown.lines().find(|line| line.starts_with("Ready after")).expect("it says when"));
    let first = seconds(shown.lines().find(|line| line.contains(" s  ")).expect("verdicts as they come"));
    assert!(ready <= 30.0 && first <= 60.0, "ready after {ready} s, first verdict after {first} s");
    assert!(shown.contains("Audited: 5 references, 5 verdicts; nothing is lost"), "{shown}");
    assert!(shown.contains("make demo MEDIA=folder"), "it says how to go on:\n{shown}");
    assert!(shown.contains("seeded"), "it says plainly that the weights are not trained:\n{shown}");
}
