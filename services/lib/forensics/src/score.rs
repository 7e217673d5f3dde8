//! Scores: P(forged), everywhere in [0, 1].

/// The network's raw margin `z_forged − z_authentic`, before calibration; finite.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Logit(f32);

impl Logit {
    /// `None` for NaN and infinities: they are a fault of the device, never a score.
    pub fn new(margin: f32) -> Option<Self> {
        margin.is_finite().then_some(Self(margin))
    }

    /// The margin.
    pub fn get(self) -> f32 {
        self.0
    }
}

/// P(forged) in [0, 1], finite.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct ForgeryScore(f32);

impl ForgeryScore {
    /// `None` outside [0, 1].
    pub fn new(probability: f32) -> Option<Self> {
        (0.0..=1.0).contains(&probability).then_some(Self(probability))
    }

    /// The logistic function of `z`; infinities become 0 and 1, NaN becomes 1/2.
    pub fn sigmoid(z: f64) -> Self {
        let p = 1.0 / (1.0 + (-z).exp());
        Self(if p.is_nan() { 0.5 } else { p as f32 })
    }

    /// The probability.
    pub fn get(self) -> f32 {
        self.0
    }
}
