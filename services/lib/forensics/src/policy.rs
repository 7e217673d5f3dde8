//! The policy turns scores into outcomes. It belongs to the operator, not to the weights.

use sha2::{Digest, Sha256};

/// How frame scores become a media's score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggregation {
    /// Mean of the top ⌈n/3⌉: a short forged passage is not averaged away.
    TopThirdMean,
    /// Mean of all.
    Mean,
    /// The highest.
    Max,
}

impl Aggregation {
    /// The name in the configuration and in verdicts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TopThirdMean => "top-third-mean",
            Self::Mean => "mean",
            Self::Max => "max",
        }
    }

    /// The aggregation of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::TopThirdMean, Self::Mean, Self::Max].into_iter().find(|a| a.as_str() == name)
    }

    /// The media's score; `None` without scores. Any order of `scores` gives the same result.
    pub fn apply(self, scores: &[f32]) -> Option<f32> {
        let mut sorted = scores.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let take = match self {
            Self::TopThirdMean => sorted.len().div_ceil(3),
            Self::Mean => sorted.len(),
            Self::Max => 1,
        };
        let top = sorted.get(..take).filter(|top| !top.is_empty())?;
        // Summed in f64 and clamped, so that a mean never leaves the range of its terms by rounding.
        let mean = (top.iter().map(|&s| f64::from(s)).sum::<f64>() / top.len() as f64) as f32;
        Some(mean.clamp(top[top.len() - 1], top[0]))
    }
}

/// Where LIKELY_FORGED begins and LIKELY_AUTHENTIC ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// P(forged) at or above it: LIKELY_FORGED.
    pub forged: f32,
    /// P(forged) below it: LIKELY_AUTHENTIC. Between the two: INCONCLUSIVE.
    pub authentic: f32,
}

impl Thresholds {
    /// `None` unless `0 ≤ authentic ≤ forged ≤ 1`.
    pub fn new(forged: f32, authentic: f32) -> Option<Self> {
        (0.0 <= authentic && authentic <= forged && forged <= 1.0).then_some(Self { forged, authentic })
    }
}

/// Everything a verdict depends on beside the pixels and the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The operator's name for it.
    pub version: String,
    /// Frames to media.
    pub aggregation: Aggregation,
    /// Overrides the bundle's thresholds where set.
    pub thresholds: Option<Thresholds>,
    /// At most this many faces of a frame are scored, the largest first; a verdict says how many were left out.
    pub faces_max: usize,
    /// Faces whose shorter side is below this many pixels are not judged.
    pub face_size_min: f32,
    /// Crops whose sharpness is below this are not judged; 0 judges all.
    pub sharpness_min: f32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            version: "default-1".to_owned(),
            aggregation: Aggregation::TopThirdMean,
            thresholds: None,
            // Chosen: a crowd says little about one media, and 32 crops are one batch.
            faces_max: 32,
            // The face detector's own minimum is 40 px: smaller faces would be enlarged more than 6 times.
            face_size_min: 40.0,
            sharpness_min: 0.0,
        }
    }
}

impl Policy {
    /// The thresholds that judge: the policy's own, else the bundle's.
    pub fn thresholds_in_force(&self, bundle: Option<Thresholds>) -> Option<Thresholds> {
        self.thresholds.or(bundle)
    }

    /// SHA-256 over every field that can change an outcome. `bundle` is what the model's bundle brings: where the
    /// policy has no thresholds of its own, these judge, and belong to the digest.
    pub fn digest(&self, bundle: Option<Thresholds>) -> [u8; 32] {
        let thresholds = self.thresholds_in_force(bundle);
        let thresholds = thresholds.map_or_else(String::new, |t| format!("{} {}", t.forged, t.authentic));
        let text = format!(
            "{}\n{}\n{thresholds}\n{}\n{}\n{}",
            self.version,
            self.aggregation.as_str(),
            self.faces_max,
            self.face_size_min,
            self.sharpness_min
        );
        Sha256::digest(text.as_bytes()).into()
    }
}
