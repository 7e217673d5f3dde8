//! The metrics and the calibration against scikit-learn itself.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use forensics::Calibration;
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use trainer::{CalibrationError, Ranking, Scored, Targets, platt};

const COUNTS: &[usize] = &[2, 3, 5, 10, 50, 99, 100, 101, 500, 2000];
const SEEDS: u64 = 6;

struct Case {
    name: String,
    scored: Vec<Scored>,
}

/// Two overlapping triangular humps, unequal classes; with ties, logits are rounded to quarters.
fn case(count: usize, seed: u64, ties: bool) -> Case {
    let mut generator = ChaCha8Rng::seed_from_u64(seed * 10_000 + count as u64);
    let mut uniform = || f64::from(generator.next_u32()) / f64::from(u32::MAX);
    let share = 0.2 + 0.6 * uniform();
    let scored = (0..count).map(|index| {
        let forged = uniform() < share;
        let x = 6.0 * (uniform() + uniform() - 1.0) + if forged { 1.5 } else { 0.0 };
        let logit = if ties { (x * 4.0).round() / 4.0 } else { x } as f32;
        Scored { logit, forged, identity: index as u32 / 2 }
    });
    Case { scored: scored.collect(), name: format!("{count} scores, seed {seed}, ties: {ties}") }
}

fn ask(cases: &[Case], overlap: &[bool]) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join(".deps/python/bin/python3");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scikit_learn.py");
    let remedy = "run `.ci/setup --tests`, which makes .deps/python with scikit-learn in it";
    assert!(python.exists(), "{} is missing: {remedy}", python.display());
    let question: Vec<Value> = cases
        .iter()
        .zip(overlap)
        .map(|(case, overlap)| {
            let logits: Vec<f32> = case.scored.iter().map(|scored| scored.logit).collect();
            let forged: Vec<bool> = case.scored.iter().map(|scored| scored.forged).collect();
            json!({ "logits": logits, "forged": forged, "overlap": overlap })
        })
        .collect();
    let mut command = Command::new(python);
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("python starts");
    let mut input = child.stdin.take().expect("stdin is piped");
    let writer = thread::spawn(move || input.write_all(Value::from(question).to_string().as_bytes()));
    let output = child.wait_with_output().expect("python ends");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "python failed: {words}\n(no module? {remedy})");
    writer.join().expect("the writer does not panic").expect("python reads all");
    serde_json::from_slice(&output.stdout).expect("python answers in JSON")
}

#[track_caller]
fn close(name: &str, what: &str, ours: f64, theirs: &Value, tolerance: f64) {
    let theirs = theirs.as_f64().unwrap_or_else(|| panic!("{name}: no {what} of theirs"));
    assert!((ours - theirs).abs() <= tolerance, "{name}: {what} is {ours}, scikit-learn's {theirs}");
}

#[test]
fn metrics_and_platt_scaling_are_those_of_scikit_learn() {
    let cases: Vec<Case> = COUNTS
        .iter()
        .flat_map(|&count| (0..SEEDS).flat_map(move |seed| [false, true].map(|ties| case(count, seed, ties))))
        .collect();
    let fits: Vec<_> = cases.iter().map(|case| platt(&case.scored, Targets::Plain)).collect();
    let answers = ask(&cases, &fits.iter().map(Result::is_ok).collect::<Vec<_>>());
    assert_eq!(answers.len(), cases.len());
    let mut fitted = 0;
    for ((Case { name, scored }, answer), fit) in cases.iter().zip(&answers).zip(&fits) {
        let ranking = Ranking::new(scored);
        if answer.is_null() {
            assert_eq!(ranking.auc(), None, "{name}");
            assert!(matches!(fit, Err(CalibrationError::ClassMissing { .. })), "{name}: {fit:?}");
            continue;
        }
        let exact = |what: &str, ours: Option<f64>| {
            close(name, what, ours.expect("both classes are there"), &answer[what], 1e-9);
        };
        exact("auc", ranking.auc());
        exact("average_precision", ranking.average_precision());
        exact("tpr_at_1_percent", ranking.tpr_at_fpr(0.01));
        exact("equal_error_rate", ranking.equal_error_rate());
        let points = ranking.roc().expect("both classes are there");
        assert_eq!(points.len(), answer["fpr"].as_array().expect("a list").len(), "{name}: points");
        for (index, point) in points.iter().enumerate() {
            close(name, "fpr", point.false_positive_rate, &answer["fpr"][index], 1e-9);
            close(name, "tpr", point.true_positive_rate, &answer["tpr"][index], 1e-9);
        }
        match fit {
            Ok(Calibration::Platt { slope, intercept, .. }) => {
                fitted += 1;
                close(name, "slope", *slope, &answer["slope"], 1e-3);
                close(name, "intercept", *intercept, &answer["intercept"], 1e-3);
            }
            Ok(Calibration::None) => panic!("{name}: no calibration"),
            // A few scores may not overlap, or rank the wrong way round, or be of one identity.
            Err(error) => assert!(scored.len() < 50, "{name}: {error}"),
        }
    }
    assert!(fitted >= 60, "only {fitted} fits compared");
}
