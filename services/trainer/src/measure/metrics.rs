//! How well scores tell forged from authentic: over scores in order, each with a weight.
//!
//! Definitions are scikit-learn's where it has one (`roc_auc_score`, `average_precision_score`, `roc_curve`), and
//! `None` wherever one class has no weight.

use forensics::{Calibration, Logit};

pub use bootstrap::{Estimate, Resampling, bootstrap};
pub use outcomes::{Confusion, Outcomes, confusion};
pub use reliability::{Reliability, ReliabilityBin};

mod bootstrap;
mod outcomes;
mod reliability;

/// One judged picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Forged minus authentic; finite.
    pub logit: f32,
    /// The truth.
    pub forged: bool,
    /// Number of its identity: the unit of the bootstrap.
    pub identity: u32,
}

impl Scored {
    /// P(forged), as a verdict would say it.
    ///
    /// # Panics
    /// If the logit is not finite.
    pub fn probability(&self, calibration: &Calibration) -> f32 {
        calibration.probability(Logit::new(self.logit).expect("a judged picture's logit is finite")).get()
    }
}

/// A point of the receiver operating characteristic: what happens when `logit` and above is called forged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RocPoint {
    /// Share of the authentic that are called forged, in [0, 1].
    pub false_positive_rate: f64,
    /// Share of the forged that are called forged, in [0, 1].
    pub true_positive_rate: f64,
    /// The lowest logit called forged; +∞ at the first point, where none is.
    pub logit: f32,
}

/// Scores from the highest to the lowest, each with a weight ≥ 0: sorted once, then weighted anew by each resample.
#[derive(Clone, Debug)]
pub struct Ranking {
    scored: Vec<Scored>,
    weights: Vec<f64>,
}

/// Weight of each class.
#[derive(Clone, Copy, Debug, Default)]
struct Mass {
    authentic: f64,
    forged: f64,
}

impl Mass {
    fn add(&mut self, forged: bool, weight: f64) {
        *(if forged { &mut self.forged } else { &mut self.authentic }) += weight;
    }
}

/// Equal logits are one step: no threshold comes between them.
struct Step {
    logit: f32,
    mass: Mass,
}

impl Ranking {
    /// Every score with weight 1.
    pub fn new(scored: &[Scored]) -> Self {
        let mut scored = scored.to_vec();
        scored.sort_unstable_by(|a, b| b.logit.total_cmp(&a.logit));
        Self { weights: vec![1.0; scored.len()], scored }
    }

    /// Scores and weights, from the highest to the lowest; equal logits in any order.
    pub fn iter(&self) -> impl Iterator<Item = (&Scored, f64)> {
        self.scored.iter().zip(self.weights.iter().copied())
    }

    /// Area under the receiver operating characteristic, in [0, 1]: the chance that a forged picture scores above an
    /// authentic one, ties counted half.
    pub fn auc(&self) -> Option<f64> {
        let total = self.total()?;
        let (mut above, mut area) = (0.0, 0.0);
        for Step { mass, .. } in self.steps() {
            area += mass.authentic * (above + mass.forged / 2.0);
            above += mass.forged;
        }
        Some(area / (total.authentic * total.forged))
    }

    /// Average precision, in [0, 1]: Σ (Rₙ − Rₙ₋₁) Pₙ, without interpolation. It depends on the classes' shares.
    pub fn average_precision(&self) -> Option<f64> {
        let total = self.total()?;
        let (mut seen, mut sum) = (Mass::default(), 0.0);
        for Step { mass, .. } in
            self.steps().filter(|step| step.mass.forged > 0.0 || step.mass.authentic > 0.0)
        {
            seen.authentic += mass.authentic;
            seen.forged += mass.forged;
            sum += mass.forged / total.forged * seen.forged / (seen.forged + seen.authentic);
        }
        Some(sum)
    }

    /// Equal error rate, in [0, 1]: where as many authentic are called forged as forged are missed, on the straight
    /// line between two points of the characteristic.
    pub fn equal_error_rate(&self) -> Option<f64> {
        let points = self.roc()?;
        // Rises from −1 at (0, 0) to 1 at (1, 1).
        let excess = |point: &RocPoint| point.false_positive_rate + point.true_positive_rate - 1.0;
        let at = points.iter().position(|point| excess(point) >= 0.0)?;
        let (before, after) = (points.get(at.checked_sub(1)?)?, points.get(at)?);
        let share = -excess(before) / (excess(after) - excess(before));
        Some(before.false_positive_rate + share * (after.false_positive_rate - before.false_positive_rate))
    }

    /// Highest true positive rate whose false positive rate is at most `limit` (in [0, 1]): a threshold that exists,
    /// not interpolated.
    pub fn tpr_at_fpr(&self, limit: f64) -> Option<f64> {
        let total = self.total()?;
        let (mut seen, mut best) = (Mass::default(), 0.0);
        for Step { mass, .. } in self.steps() {
            seen.authentic += mass.authentic;
            seen.forged += mass.forged;
            if seen.authentic / total.authentic > limit {
                break;
            }
            best = seen.forged / total.forged;
        }
        Some(best)
    }

    /// The receiver operating characteristic from (0, 0) to (1, 1), a point for each distinct logit.
    pub fn roc(&self) -> Option<Vec<RocPoint>> {
        let total = self.total()?;
        let mut seen = Mass::default();
        let start = RocPoint { false_positive_rate: 0.0, true_positive_rate: 0.0, logit: f32::INFINITY };
        let points = self.steps().map(|Step { mass, logit }| {
            seen.authentic += mass.authentic;
            seen.forged += mass.forged;
            RocPoint {
                false_positive_rate: seen.authentic / total.authentic,
                true_positive_rate: seen.forged / total.forged,
                logit,
            }
        });
        Some(std::iter::once(start).chain(points).collect())
    }

    /// Share of the authentic whose P(forged) is at or above `threshold`, in [0, 1].
    pub fn false_alarms(&self, calibration: &Calibration, threshold: f32) -> Option<f64> {
        let mut mass = Mass::default();
        for (scored, weight) in self.iter().filter(|(scored, _)| !scored.forged) {
            mass.add(scored.probability(calibration) >= threshold, weight);
        }
        let total = mass.authentic + mass.forged;
        (total > 0.0).then(|| mass.forged / total)
    }

    /// Each class's weight; `None` where one has none.
    fn total(&self) -> Option<Mass> {
        let mut total = Mass::default();
        for (scored, weight) in self.iter() {
            total.add(scored.forged, weight);
        }
        (total.authentic > 0.0 && total.forged > 0.0).then_some(total)
    }

    fn steps(&self) -> impl Iterator<Item = Step> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let logit = self.scored.get(at)?.logit;
            let mut mass = Mass::default();
            while let Some(scored) = self.scored.get(at).filter(|scored| scored.logit == logit) {
                mass.add(scored.forged, self.weights[at]);
                at += 1;
            }
            Some(Step { logit, mass })
        })
    }
}
