//! "Two commands": the demo judges the samples with the real network, for the right reasons.

use e2e::process::{root, standalone_command};

#[test]
fn the_demo_shows_a_verdict_for_every_sample() {
    let output = standalone_command()
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
    assert!(shown.contains("seeded"), "it says plainly that the weights are not trained:\n{shown}");
}
