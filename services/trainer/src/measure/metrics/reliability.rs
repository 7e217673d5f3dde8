//! Whether P(forged) = p comes true in the share p of cases.

use forensics::Calibration;
use serde::{Deserialize, Serialize};

use super::{Mass, Ranking};

/// Bins of the expected calibration error: equal mass, so that none rests on a handful of scores.
const BIN_COUNT: usize = 10;

/// A tenth, say, of the scores, by P(forged). Masses and means are under the 50/50 prior.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Mean P(forged), in [0, 1].
    pub predicted: f64,
    /// Share of the forged, in [0, 1].
    pub observed: f64,
    /// The bin's share of the whole mass, in (0, 1].
    pub mass: f64,
    /// Authentic pictures in it.
    pub authentic: u64,
    /// Forged pictures in it.
    pub forged: u64,
}

/// Bins from the lowest P(forged) to the highest, and how far they are off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Those that hold a score; equal scores stay together, so masses are equal only as far as ties allow.
    pub bins: Vec<ReliabilityBin>,
    /// Expected calibration error, in [0, 1]: Σ mass · |observed − predicted| (Naeini et al., 2015). Noise alone
    /// gives more than 0: .07 for 75 + 75 scores that are calibrated perfectly.
    pub calibration_error: f64,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    weight: f64,
    probability: f64,
    forged: f64,
    count: Mass,
}

impl Ranking {
    /// Predicted against observed in ten bins of equal mass, each class weighted to half of it.
    pub fn reliability(&self, calibration: &Calibration) -> Option<Reliability> {
        let total = self.total()?;
        let mut bins = [Sums::default(); BIN_COUNT];
        let mut above = 0.0;
        for step in self.steps() {
            let (authentic, forged) =
                (step.mass.authentic / total.authentic / 2.0, step.mass.forged / total.forged / 2.0);
            let weight = authentic + forged;
            // From the top: 1 − middle is the share below.
            let middle = 1.0 - (above + weight / 2.0);
            above += weight;
            let index = ((middle * bins.len() as f64).max(0.0) as usize).min(bins.len() - 1);
            let sums = &mut bins[index];
            sums.weight += weight;
            sums.probability += weight * probability(calibration, step.logit);
            sums.forged += forged;
            sums.count.authentic += step.mass.authentic;
            sums.count.forged += step.mass.forged;
        }
        let bins: Vec<ReliabilityBin> =
            bins.iter().filter(|sums| sums.weight > 0.0).map(ReliabilityBin::of).collect();
        let calibration_error = bins.iter().map(|bin| bin.mass * (bin.observed - bin.predicted).abs()).sum();
        Some(Reliability { bins, calibration_error })
    }

    /// See [`Reliability::calibration_error`].
    pub fn calibration_error(&self, calibration: &Calibration) -> Option<f64> {
        self.reliability(calibration).map(|reliability| reliability.calibration_error)
    }
}

impl ReliabilityBin {
    fn of(sums: &Sums) -> Self {
        Self {
            predicted: sums.probability / sums.weight,
            observed: sums.forged / sums.weight,
            mass: sums.weight,
            authentic: sums.count.authentic.round() as u64,
            forged: sums.count.forged.round() as u64,
        }
    }
}

fn probability(calibration: &Calibration, logit: f32) -> f64 {
    f64::from(super::Scored { logit, forged: false, identity: 0 }.probability(calibration))
}
