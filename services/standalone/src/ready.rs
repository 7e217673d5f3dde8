//! What a person reads when everything is up.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forensics::{Calibration, Thresholds, scripted};
use models::bundle::Manifest;

use crate::config::Config;
use crate::start::Addresses;

/// Prints addresses and the commands to try on standard output; the log goes to standard error.
pub(crate) fn announce(config: &Config, addresses: &Addresses, took: Duration) {
    let text = text(config, addresses, took);
    if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
        tracing::debug!(%error, "nobody reads the announcement");
    }
}

fn text(config: &Config, addresses: &Addresses, took: Duration) -> String {
    let Addresses { grpc, s3, admin } = addresses;
    let data = config.folder.display();
    let touchstone = touchstone();
    let admin = admin.map(|admin| format!("  admin   http://{admin}/readyz, /livez, /metrics\n"));
    let model = model(config);
    format!(
        "touchstone is ready after {:.1} s\n  data    {data}\n  gRPC    {grpc}   grpcurl -plaintext {grpc} list\n  \
         S3      {s3}   bucket {}, keys in {data}/connection.toml\n{}  model   {model}\n\n  {touchstone} --data {data} submit \
         portrait.jpg\n  {touchstone} --data {data} list\n  {touchstone} --data {data} verify\n\nSIGTERM or Ctrl-C \
         drains and ends it; the folder keeps everything.\n",
        took.as_secs_f64(),
        config.bucket(),
        admin.unwrap_or_default(),
    )
}

/// Who judges, and where its answers begin.
pub(crate) fn model(config: &Config) -> String {
    let name = config.model();
    if name == scripted::NAME {
        return "scripted: a function of colours, for tests".to_owned();
    }
    let (bundle, calibration, thresholds) = match Manifest::read(Path::new(name)) {
        Ok(Manifest { name: title, version, calibration, thresholds, .. }) => {
            (format!("{title} {version} ({name})"), calibration, thresholds)
        }
        // Seeded weights, or no bundle: then the worker that loads it says why.
        Err(_) => (name.to_owned(), Calibration::None, None),
    };
    match (calibration, config.thresholds().or(thresholds)) {
        (Calibration::Platt { .. }, Some(Thresholds { forged, authentic })) => format!(
            "{bundle}: LIKELY_FORGED from P(forged) {forged:.3}, LIKELY_AUTHENTIC below {authentic:.3}"
        ),
        _ => format!("{bundle}, not calibrated: every face is INCONCLUSIVE (MODEL_NOT_CALIBRATED)"),
    }
}

/// The command line beside this program if it was built, so that the line can be pasted.
fn touchstone() -> String {
    let beside = || {
        let path = std::env::current_exe().ok()?.with_file_name("touchstone");
        path.is_file().then(|| short(&path).display().to_string())
    };
    beside().unwrap_or_else(|| "touchstone".to_owned())
}

/// The path from here, where it lies below.
fn short(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    const MANIFEST: &str = r#"
format = 1
name = "two-stream-mini"
version = "7"
fusion = "official"
licence = "CC0"
training = "none"
architecture = { width_percent = 25, middle_blocks = 4 }
preprocessing = { crop = "aligned", face_detector = "mtcnn-facenet-2.6.0" }
weights = { file = "weights.safetensors", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }
golden = { file = "golden.safetensors", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }
thresholds = { forged = 0.75, authentic = 0.25 }
"#;

    /// What is said of a model under these settings.
    fn shown(name: &str, settings: Option<PathBuf>) -> String {
        let (data, model) = (Some("/somewhere".into()), Some(name.to_owned()));
        let overrides = Overrides { data, model, file: settings, ..Overrides::default() };
        super::model(&Config::load(overrides, std::iter::empty()).expect("the settings are valid"))
    }

    #[test]
    fn a_model_says_where_its_answers_begin() {
        let folder = tempfile::tempdir().unwrap();
        let (name, manifest) = (folder.path().display().to_string(), folder.path().join("manifest.toml"));
        let platt =
            "method = \"platt\", slope = 1.0, intercept = 0.0, covariance = [0.1, 0.0, 0.1], data = \"x\"";
        std::fs::write(&manifest, format!("{MANIFEST}calibration = {{ {platt} }}\n")).unwrap();
        let said = shown(&name, None);
        assert!(said.starts_with("two-stream-mini 7 ("), "{said}");
        assert!(said.ends_with("LIKELY_FORGED from P(forged) 0.750, LIKELY_AUTHENTIC below 0.250"), "{said}");

        let settings = folder.path().join("settings.toml");
        std::fs::write(&settings, "[worker.policy]\nthresholds = [0.9, 0.1]\n").unwrap();
        let said = shown(&name, Some(settings.clone()));
        assert!(said.ends_with("0.900, LIKELY_AUTHENTIC below 0.100"), "the operator's win: {said}");

        std::fs::write(&manifest, format!("{MANIFEST}calibration = {{ method = \"none\" }}\n")).unwrap();
        for (name, settings) in [(&*name, Some(settings)), ("seeded:mini", None)] {
            let said = shown(name, settings);
            assert!(said.ends_with("INCONCLUSIVE (MODEL_NOT_CALIBRATED)"), "{said}");
        }
        assert!(shown(scripted::NAME, None).contains("for tests"));
    }
}
