//! `manifest.toml`: what a bundle says about itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forensics::{Calibration, CropMode, Preprocessing, Thresholds};
use serde::{Deserialize, Serialize};

use crate::two_stream::{Architecture, Fusion};

/// What a model is, beside its numbers. Checked: every field can be used as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The model's name, such as `two-stream`.
    pub name: String,
    /// The model's version.
    pub version: String,
    /// Its size.
    pub architecture: Architecture,
    /// Its dialect.
    pub fusion: Fusion,
    /// How its input is made.
    pub preprocessing: Preprocessing,
    /// What its logits mean.
    pub calibration: Calibration,
    /// The data that the calibration was fitted on; empty without one.
    pub calibrated_on: String,
    /// Where its answers begin; `None`: it always abstains.
    pub thresholds: Option<Thresholds>,
    /// The licence of the weights.
    pub licence: String,
    /// How the weights came to be.
    pub training: String,
    /// What it was measured to do; nothing is decided by it.
    pub measured: Vec<Measured>,
}

/// What a model was measured to do on some pictures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// On what.
    pub on: String,
    /// The command that measured it.
    pub command: String,
    /// People in the pictures.
    pub people: usize,
    /// Pictures judged.
    pub pictures: usize,
    /// Area under the receiver operating characteristic, by condition and kind of forgery.
    pub auc: BTreeMap<String, BTreeMap<String, Interval>>,
    /// Share of the pristine that are LIKELY_FORGED, by condition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub false_alarms: BTreeMap<String, Interval>,
    /// Expected calibration error, by condition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub calibration_error: BTreeMap<String, Interval>,
}

/// A number in [0, 1] and the ends of its 95 % interval: value, low, high.
pub type Interval = [f64; 3];

/// A file beside the manifest, pinned by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pinned {
    pub(crate) file: String,
    pub(crate) sha256: String,
}

/// The pinned files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) weights: Pinned,
    pub(crate) golden: Pinned,
}

/// What is wrong with a manifest: every field that is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", .path.display(), .wrong.join("; "))]
pub struct ManifestError {
    path: PathBuf,
    wrong: Vec<String>,
}

/// Raised when an older program must not read a newer manifest.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    format: u32,
    name: String,
    version: String,
    fusion: String,
    licence: String,
    training: String,
    architecture: RawArchitecture,
    preprocessing: RawPreprocessing,
    weights: Pinned,
    golden: Pinned,
    calibration: RawCalibration,
    #[serde(skip_serializing_if = "Option::is_none")]
    thresholds: Option<RawThresholds>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    measured: Vec<Measured>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArchitecture {
    width_percent: u32,
    middle_blocks: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPreprocessing {
    crop: String,
    face_detector: String,
}

/// `P = σ(slope·logit + intercept)`; temperature T is slope 1/T and intercept 0.
#[derive(Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
enum RawCalibration {
    None,
    Platt {
        slope: f64,
        intercept: f64,
        /// `[var(slope), cov, var(intercept)]`.
        covariance: [f64; 3],
        data: String,
    },
    Temperature {
        temperature: f64,
        /// Variance of 1/temperature.
        variance: f64,
        data: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawThresholds {
    forged: f32,
    authentic: f32,
}

impl Manifest {
    /// Reads the text of the manifest at `path` (which only errors name).
    pub(crate) fn parse(path: &Path, text: &str) -> Result<(Self, Files), ManifestError> {
        let refuse = |wrong: Vec<String>| ManifestError { path: path.to_owned(), wrong };
        let raw: Raw = toml::from_str(text).map_err(|error| refuse(vec![one_line(&error.to_string())]))?;
        let mut wrong = Vec::new();
        let manifest = raw.check(&mut wrong);
        match manifest {
            Some(manifest) if wrong.is_empty() => Ok(manifest),
            _ => Err(refuse(wrong)),
        }
    }

    pub(crate) fn to_text(&self, files: Files) -> String {
        let calibration = match self.calibration {
            Calibration::None => RawCalibration::None,
            Calibration::Platt { slope, intercept, covariance } => {
                RawCalibration::Platt { slope, intercept, covariance, data: self.calibrated_on.clone() }
            }
        };
        let raw = Raw {
            format: FORMAT,
            name: self.name.clone(),
            version: self.version.clone(),
            fusion: self.fusion.name().to_owned(),
            licence: self.licence.clone(),
            training: self.training.clone(),
            architecture: RawArchitecture {
                width_percent: self.architecture.width_percent(),
                middle_blocks: self.architecture.middle_blocks(),
            },
            preprocessing: RawPreprocessing {
                crop: self.preprocessing.crop.as_str().to_owned(),
                face_detector: self.preprocessing.face_detector.clone(),
            },
            weights: files.weights,
            golden: files.golden,
            calibration,
            thresholds: self
                .thresholds
                .map(|Thresholds { forged, authentic }| RawThresholds { forged, authentic }),
            measured: self.measured.clone(),
        };
        toml::to_string(&raw).expect("strings, numbers and tables with string keys are all TOML")
    }
}

/// What a model's name and version may be, for people.
pub const NAME: &str = "1 to 64 letters, digits, '-', '_' or '.'";

/// Whether a model's name or version is [`NAME`]: they become part of verdicts and metrics.
pub fn is_name(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !word.is_empty() && word.len() <= 64 && word.chars().all(plain)
}

impl Raw {
    fn check(self, wrong: &mut Vec<String>) -> Option<(Manifest, Files)> {
        if self.format != FORMAT {
            wrong.push(format!("format is {}, this program reads {FORMAT}", self.format));
        }
        for (key, value) in [("name", &self.name), ("version", &self.version)] {
            if !is_name(value) {
                wrong.push(format!("{key} is {value:?}, not {NAME}"));
            }
        }
        self.weights.check("weights", wrong);
        self.golden.check("golden", wrong);
        let fusion = Fusion::from_name(&self.fusion);
        if fusion.is_none() {
            wrong.push(format!("fusion is {:?}, neither official nor deepfakebench", self.fusion));
        }
        let RawArchitecture { width_percent, middle_blocks } = self.architecture;
        let architecture = Architecture::new(width_percent, middle_blocks);
        if let Err(error) = &architecture {
            wrong.push(format!("architecture: {error}"));
        }
        let crop = CropMode::parse(&self.preprocessing.crop);
        if crop.is_none() {
            wrong.push(format!(
                "preprocessing.crop is {:?}, not aligned, box or none",
                self.preprocessing.crop
            ));
        }
        let (calibration, calibrated_on) = self.calibration.check(wrong);
        let thresholds = self.thresholds.map(|RawThresholds { forged, authentic }| {
            let checked = Thresholds::new(forged, authentic);
            if checked.is_none() {
                wrong.push(format!("thresholds: not 0 ≤ authentic {authentic} ≤ forged {forged} ≤ 1"));
            }
            checked
        });
        let manifest = Manifest {
            name: self.name,
            version: self.version,
            architecture: architecture.ok()?,
            fusion: fusion?,
            preprocessing: Preprocessing { crop: crop?, face_detector: self.preprocessing.face_detector },
            calibration,
            calibrated_on,
            thresholds: thresholds.flatten(),
            licence: self.licence,
            training: self.training,
            measured: self.measured,
        };
        Some((manifest, Files { weights: self.weights, golden: self.golden }))
    }
}

impl RawCalibration {
    fn check(self, wrong: &mut Vec<String>) -> (Calibration, String) {
        let (slope, intercept, covariance, data) = match self {
            Self::None => return (Calibration::None, String::new()),
            Self::Platt { slope, intercept, covariance, data } => (slope, intercept, covariance, data),
            Self::Temperature { temperature, variance, data } => {
                (1.0 / temperature, 0.0, [variance, 0.0, 0.0], data)
            }
        };
        // A falling calibration would call the forged authentic.
        if !(slope.is_finite() && slope > 0.0 && intercept.is_finite()) {
            wrong.push(format!(
                "calibration: slope {slope} is not positive, or intercept {intercept} not finite"
            ));
        }
        let [slope_variance, covary, intercept_variance] = covariance;
        let is_covariance = covariance.iter().all(|value| value.is_finite())
            && slope_variance >= 0.0
            && intercept_variance >= 0.0
            && covary * covary <= slope_variance * intercept_variance * (1.0 + 1e-9);
        if !is_covariance {
            wrong.push(format!("calibration: {covariance:?} is no covariance"));
        }
        (Calibration::Platt { slope, intercept, covariance }, data)
    }
}

impl Pinned {
    fn check(&self, key: &str, wrong: &mut Vec<String>) {
        // A plain name: a bundle reads nothing outside its own folder.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.file.is_empty() || self.file.starts_with('.') || !self.file.chars().all(plain) {
            wrong.push(format!("{key}.file is {:?}, not a plain file name", self.file));
        } else if !self.file.ends_with(".safetensors") {
            wrong.push(format!("{key}.file is {:?}; services read safetensors only", self.file));
        }
        if self.sha256.len() != 64 || !self.sha256.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')) {
            wrong.push(format!("{key}.sha256 is {:?}, not 64 lower-case hexadecimal digits", self.sha256));
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
