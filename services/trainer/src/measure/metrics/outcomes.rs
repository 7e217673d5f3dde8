//! What verdicts would say: counts at the thresholds.

use forensics::{Calibration, Thresholds};
use serde::{Deserialize, Serialize};

use super::Scored;

/// Pictures of one class, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Called LIKELY_AUTHENTIC.
    pub authentic: u64,
    /// Called INCONCLUSIVE.
    pub inconclusive: u64,
    /// Called LIKELY_FORGED.
    pub forged: u64,
}

impl Outcomes {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.authentic + self.inconclusive + self.forged
    }
}

/// Truth against outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// What the authentic are called.
    pub of_authentic: Outcomes,
    /// What the forged are called.
    pub of_forged: Outcomes,
}

/// Counts each class by outcome, by the rule of [`Thresholds`].
pub fn confusion(scored: &[Scored], calibration: &Calibration, thresholds: Thresholds) -> Confusion {
    let mut confusion = Confusion::default();
    for scored in scored {
        let probability = scored.probability(calibration);
        let outcomes = if scored.forged { &mut confusion.of_forged } else { &mut confusion.of_authentic };
        if probability >= thresholds.forged {
            outcomes.forged += 1;
        } else if probability < thresholds.authentic {
            outcomes.authentic += 1;
        } else {
            outcomes.inconclusive += 1;
        }
    }
    confusion
}
