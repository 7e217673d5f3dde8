use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

const DEFAULTS: &str = r#"
name = "worker"
buckets = ["media"]
[batch]
size_max = 64          # crops
wait = "100ms"
bytes = "32MiB"
"#;

#[derive(Debug, PartialEq, Deserialize, Serialize)]
struct Raw {
    name: String,
    buckets: Vec<String>,
    batch: Batch,
    secret: Option<Secret>,
    #[serde(default)]
    lanes: BTreeMap<String, u32>,
}

#[derive(Debug, PartialEq, Deserialize, Serialize)]
struct Batch {
    size_max: u32,
    wait: HumanDuration,
    bytes: ByteSize,
}

fn load_with(file: &str, env: &[(&str, &str)]) -> Result<Raw, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    load(DEFAULTS, Some(&path), "APP", env).map_err(|error| {
        let shown = path.display().to_string();
        ConfigError { errors: error.errors.iter().map(|error| error.replace(&shown, "FILE")).collect() }
    })
}

#[test]
fn later_layers_win() {
    let raw = load_with(
        "[batch]\nsize_max = 32\nwait = '1s'\n[lanes]\nlive = 3\n",
        &[("APP__BATCH__SIZE_MAX", "16"), ("APP__BUCKETS", "a, b"), ("OTHER__NAME", "x"), ("APPLE", "x")],
    )
    .unwrap();
    assert_eq!((raw.batch.size_max, raw.batch.wait.get().as_secs()), (16, 1));
    assert_eq!(raw.batch.bytes.bytes(), 32 << 20);
    assert_eq!(raw.buckets, ["a", "b"]);
    assert_eq!(raw.lanes, BTreeMap::from([("live".to_string(), 3)]));
}

#[test]
fn text_that_looks_like_a_number_stays_text() {
    let raw = load_with("", &[("APP__NAME", "12"), ("APP__SECRET", "0123"), ("APP__BATCH__BYTES", "7")]);
    let raw = raw.unwrap();
    assert_eq!(raw.name, "12");
    assert_eq!(raw.secret.unwrap().expose(), "0123");
    assert_eq!(raw.batch.bytes.bytes(), 7);
}

#[test]
fn every_error_is_listed() {
    let file = "nmae = 'x'\n[batch]\nsize_max = 'many'\nwait = 30\n[extra]\na = 1\n";
    let error = load_with(file, &[("APP__BATCH__BYTES", "lots"), ("APP__BATCH__SPEED", "1")]).unwrap_err();
    let expected = [
        "batch.bytes: `lots` is not a size such as `512KiB`, `32MiB` or `1GiB` (environment variable APP__BATCH__BYTES)",
        "batch.size_max: invalid type: string \"many\", expected u32 (in FILE)",
        "batch.speed: unknown key (environment variable APP__BATCH__SPEED)",
        "batch.wait: invalid type: integer `30`, expected a string (in FILE)",
        "extra: unknown key (in FILE)",
        "nmae: unknown key (in FILE)",
    ];
    let mut errors = error.errors;
    errors.sort();
    assert_eq!(errors, expected);
}

#[test]
fn a_missing_or_broken_file_is_an_error_that_names_it() {
    let missing = load::<Raw>(DEFAULTS, Some(Path::new("/nowhere/x.toml")), "APP", std::iter::empty());
    assert!(missing.unwrap_err().to_string().contains("/nowhere/x.toml: No such file"));
    let broken = load_with("name = 'x'\nsecret = 'canary' oops\n", &[]).unwrap_err().to_string();
    assert!(broken.contains("FILE, line 2") && !broken.contains("canary"), "{broken}");
}

#[test]
fn secrets_are_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "canary-file\n").unwrap();
    let reference = format!("file:{}", path.display());

    for (given, value) in [("canary-literal", "canary-literal"), (reference.as_str(), "canary-file")] {
        let raw = load_with("", &[("APP__SECRET", given)]).unwrap();
        assert_eq!(raw.secret.as_ref().unwrap().expose(), value);
        let shown = format!("{}{raw:?}", render(&raw));
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("[redacted]") || shown.contains(&reference), "{shown}");
    }
    let number = load_with("secret = 4711\n", &[]).unwrap_err().to_string();
    assert!(number.contains("secret: a secret is text") && !number.contains("4711"), "{number}");
    let gone = load_with("secret = 'file:/nowhere/key'\n", &[]).unwrap_err().to_string();
    assert!(gone.contains("secret file /nowhere/key"), "{gone}");
}

#[test]
fn what_is_rendered_reads_back() {
    let raw = load_with("", &[]).unwrap();
    assert_eq!(load::<Raw>(&render(&raw), None, "APP", std::iter::empty()).unwrap(), raw);
}

#[test]
fn problems_are_collected() {
    let mut problems = Problems::default();
    problems.require(false, "batch.size_max", "must be at least 1");
    problems.require(true, "fine", "never said");
    assert_eq!(problems.take("name", "x".parse::<u8>()), None);
    let error = problems.finish(()).unwrap_err();
    assert_eq!(error.errors.len(), 2);
    assert!(error.to_string().contains("\n  batch.size_max: must be at least 1\n  name: invalid digit"));
}
