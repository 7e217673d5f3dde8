//! Which model judged, how its input was made, and what its logits mean.

use sha2::{Digest, Sha256};

use crate::score::{ForgeryScore, Logit};

/// The arithmetic a model runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// bfloat16 with f32 accumulation.
    Bf16,
    /// No arithmetic of a network: the scripted detector.
    Scripted,
}

impl Precision {
    /// The name in verdicts, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Scripted => "scripted",
        }
    }
}

/// What a model runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceClass {
    /// The host's processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

impl DeviceClass {
    /// The name in verdicts, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

/// A model, as a verdict names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelIdentity {
    /// The bundle's name.
    pub name: String,
    /// The bundle's version.
    pub version: String,
    /// SHA-256 over weights and calibration.
    pub sha256: [u8; 32],
    /// The arithmetic.
    pub precision: Precision,
    /// The device.
    pub device: DeviceClass,
}

/// How a face becomes the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CropMode {
    /// Five landmarks onto the ArcFace template by a similarity transform, margin 1.3 (DeepfakeBench).
    Aligned,
    /// The detector's box made square, enlarged 1.3×, resized (FF++ protocol).
    Box,
    /// The frame already is a crop: resized to 256×256 only.
    None,
}

impl CropMode {
    /// The name in manifests and verdicts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aligned => "aligned",
            Self::Box => "box",
            Self::None => "none",
        }
    }

    /// The mode of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Aligned, Self::Box, Self::None].into_iter().find(|mode| mode.as_str() == name)
    }
}

/// Everything between the object's bytes and the network's input; part of the model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Preprocessing {
    /// How the crop is cut.
    pub crop: CropMode,
    /// Which face detector finds the faces, by name and version.
    pub face_detector: String,
}

impl Preprocessing {
    /// Raised when decode, crop or detection change their pixels.
    pub const VERSION: u32 = 1;

    /// The name a verdict carries, such as `1/aligned/mtcnn-facenet-2.6.0`.
    pub fn name(&self) -> String {
        format!("{}/{}/{}", Self::VERSION, self.crop.as_str(), self.face_detector)
    }

    /// SHA-256 of [`Self::name`].
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.name().as_bytes()).into()
    }
}

/// What a logit means as a probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Calibration {
    /// Nobody fitted one: the score ranks, and every verdict abstains.
    None,
    /// `P = σ(slope · logit + intercept)` (Platt, 1999); temperature scaling is `slope = 1/T`, `intercept = 0`.
    Platt {
        /// Slope; positive.
        slope: f64,
        /// Intercept.
        intercept: f64,
        /// Covariance of the fit as `[var(slope), cov, var(intercept)]`; zeros where it is not known.
        covariance: [f64; 3],
    },
}

impl Calibration {
    /// P(forged) of a logit. Without a calibration the raw softmax `σ(logit)`: a ranking, not a probability.
    pub fn probability(&self, logit: Logit) -> ForgeryScore {
        let x = f64::from(logit.get());
        match *self {
            Self::None => ForgeryScore::sigmoid(x),
            Self::Platt { slope, intercept, .. } => ForgeryScore::sigmoid(slope * x + intercept),
        }
    }

    /// The 95 % interval of [`Self::probability`] from the fit's covariance (delta method on the logit scale);
    /// `None` without a calibration.
    pub fn interval(&self, logit: Logit) -> Option<(ForgeryScore, ForgeryScore)> {
        let Self::Platt { slope, intercept, covariance: [vs, cov, vi] } = *self else { return None };
        let x = f64::from(logit.get());
        let z = slope * x + intercept;
        let error = (vs * x * x + 2.0 * cov * x + vi).max(0.0).sqrt() * 1.959_964;
        Some((ForgeryScore::sigmoid(z - error), ForgeryScore::sigmoid(z + error)))
    }

    /// The logit whose probability is `p`, clipped where `p` is 0 or 1: the way back, for media scores that
    /// were averaged as probabilities.
    pub fn logit(&self, p: ForgeryScore) -> Logit {
        let p = f64::from(p.get()).clamp(1e-7, 1.0 - 1e-7);
        let z = (p / (1.0 - p)).ln();
        let x = match *self {
            Self::None => z,
            Self::Platt { slope, intercept, .. } => (z - intercept) / slope,
        };
        Logit::new(x as f32).unwrap_or_else(|| Logit::new(0.0).expect("zero is finite"))
    }

    /// Bytes for the model's digest: a model is its weights and its calibration.
    pub fn digest_bytes(&self) -> Vec<u8> {
        match *self {
            Self::None => b"none".to_vec(),
            Self::Platt { slope, intercept, covariance } => {
                let mut bytes = b"platt".to_vec();
                for value in [slope, intercept].into_iter().chain(covariance) {
                    bytes.extend_from_slice(&value.to_be_bytes());
                }
                bytes
            }
        }
    }
}
