//! From logits to probabilities, and from probabilities to thresholds.

use std::collections::BTreeMap;

use forensics::{Calibration, Thresholds};
use thiserror::Error;

use crate::measure::metrics::Scored;

/// What the fit aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// `(n₊ + 1)/(n₊ + 2)` and `1/(n₋ + 2)`: never 0 or 1, so that classes that do not overlap still have a fit
    /// (Platt, 1999).
    Smoothed,
    /// 1 and 0: plain logistic regression.
    Plain,
}

/// How many errors of each kind the thresholds may make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budgets {
    /// Share of the authentic that may be LIKELY_FORGED, in [0, 1).
    pub false_alarms: f64,
    /// Share of the forged that may be LIKELY_AUTHENTIC, in [0, 1).
    pub misses: f64,
}

impl Default for Budgets {
    /// 1 % and 5 %. Chosen.
    fn default() -> Self {
        Self { false_alarms: 0.01, misses: 0.05 }
    }
}

/// Why scores give no calibration or no thresholds.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum CalibrationError {
    /// A class has no pictures.
    #[error("both classes are needed: {authentic} authentic, {forged} forged")]
    ClassMissing {
        /// Authentic pictures.
        authentic: usize,
        /// Forged pictures.
        forged: usize,
    },
    /// A logit is NaN or infinite.
    #[error("a logit is not finite: {0}")]
    NotFinite(f32),
    /// All pictures are of one identity, whose fit would say nothing about others.
    #[error("all pictures are of one identity")]
    OneIdentity,
    /// All logits are equal.
    #[error("all logits are equal")]
    Constant,
    /// Plain targets on classes that do not overlap: the steeper, the better, without end.
    #[error("the classes do not overlap: plain targets have no best fit, take smoothed ones")]
    Separable,
    /// Higher logits do not mean forged.
    #[error("slope is not positive: {0}; the logits do not rank")]
    Slope(f64),
    /// Newton's method stopped early.
    #[error("no convergence after {iterations} iterations: gradient {gradient:e}")]
    NotConverged {
        /// Steps taken.
        iterations: usize,
        /// Its largest component, for a loss whose weights sum to 1.
        gradient: f64,
    },
    /// There is no calibration whose probabilities could have thresholds.
    #[error("thresholds need a calibration")]
    Uncalibrated,
    /// A budget outside [0, 1).
    #[error("budget outside [0, 1): {0}")]
    Budget(f64),
    /// P = 1 for more of the authentic than may be called forged.
    #[error("P(forged) is 1 for more of the authentic than the budget of {0}")]
    Saturated(f64),
}

/// Platt scaling, `P = σ(slope · logit + intercept)`, each class weighted to half of the mass: P is under a 50/50 prior.
/// The covariance is the sandwich clustered by identity (Liang & Zeger, 1986), times G/(G − 1) for G identities.
pub fn platt(scored: &[Scored], targets: Targets) -> Result<Calibration, CalibrationError> {
    fit(scored, targets, Intercept::Free)
}

/// Temperature scaling, `P = σ(logit / T)` (Guo et al., 2017), weighted as [`platt`]: slope 1/T, intercept 0.
pub fn temperature(scored: &[Scored], targets: Targets) -> Result<Calibration, CalibrationError> {
    fit(scored, targets, Intercept::Zero)
}

/// `forged`: the lowest probability that no more than the budget of the authentic reach. `authentic`: the highest below
/// which no more than the budget of the forged lie. Where they cross, both take `forged`.
pub fn thresholds(
    scored: &[Scored],
    calibration: &Calibration,
    budgets: Budgets,
) -> Result<Thresholds, CalibrationError> {
    match *calibration {
        Calibration::None => return Err(CalibrationError::Uncalibrated),
        Calibration::Platt { slope, .. } => positive(slope)?,
    };
    for budget in [budgets.false_alarms, budgets.misses] {
        if !(0.0..1.0).contains(&budget) {
            return Err(CalibrationError::Budget(budget));
        }
    }
    check(scored)?;
    let probabilities = |forged: bool| {
        let class = scored.iter().filter(|scored| scored.forged == forged);
        let mut sorted: Vec<f32> = class.map(|scored| scored.probability(calibration)).collect();
        sorted.sort_unstable_by(f32::total_cmp);
        sorted
    };
    let (authentic, forged) = (probabilities(false), probabilities(true));
    // The highest authentic probability that must stay below the threshold.
    let kept = authentic[authentic.len() - 1 - allowed(budgets.false_alarms, authentic.len())];
    let reached = authentic.iter().copied().find(|&p| p > kept).unwrap_or_else(|| kept.next_up());
    let missed = forged[allowed(budgets.misses, forged.len())];
    Thresholds::new(reached, missed.min(reached)).ok_or(CalibrationError::Saturated(budgets.false_alarms))
}

/// How many of `count` a budget allows; fewer than `count`. A product that rounding left just below a whole is the whole.
fn allowed(budget: f64, count: usize) -> usize {
    ((budget * count as f64 + 1e-9) as usize).min(count - 1)
}

fn positive(slope: f64) -> Result<f64, CalibrationError> {
    if slope > 0.0 && slope.is_finite() { Ok(slope) } else { Err(CalibrationError::Slope(slope)) }
}

/// Pictures of each class: authentic, forged.
fn check(scored: &[Scored]) -> Result<(usize, usize), CalibrationError> {
    if let Some(wrong) = scored.iter().find(|scored| !scored.logit.is_finite()) {
        return Err(CalibrationError::NotFinite(wrong.logit));
    }
    let forged = scored.iter().filter(|scored| scored.forged).count();
    let authentic = scored.len() - forged;
    if authentic == 0 || forged == 0 {
        return Err(CalibrationError::ClassMissing { authentic, forged });
    }
    Ok((authentic, forged))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Intercept {
    Free,
    Zero,
}

/// A picture as the fit sees it.
struct Row {
    /// The logit, shifted and scaled.
    x: f64,
    target: f64,
    /// All sum to 1, those of each class to 1/2.
    weight: f64,
    identity: u32,
}

/// `z = slope · x + intercept`.
#[derive(Clone, Copy)]
struct Line {
    slope: f64,
    intercept: f64,
}

/// A symmetric matrix over (slope, intercept): `[[a, b], [b, c]]`.
#[derive(Clone, Copy, Default)]
struct Symmetric {
    a: f64,
    b: f64,
    c: f64,
}

fn fit(scored: &[Scored], targets: Targets, kind: Intercept) -> Result<Calibration, CalibrationError> {
    let (authentic, forged) = check(scored)?;
    if scored.iter().all(|other| other.identity == scored[0].identity) {
        return Err(CalibrationError::OneIdentity);
    }
    if targets == Targets::Plain && separable(scored, kind) {
        return Err(CalibrationError::Separable);
    }
    let target = |is_forged: bool| match (targets, is_forged) {
        (Targets::Smoothed, true) => (forged as f64 + 1.0) / (forged as f64 + 2.0),
        (Targets::Smoothed, false) => 1.0 / (authentic as f64 + 2.0),
        (Targets::Plain, is_forged) => f64::from(u8::from(is_forged)),
    };
    let (shift, scale) = standard(scored, kind)?;
    let row = |scored: &Scored| Row {
        x: (f64::from(scored.logit) - shift) / scale,
        target: target(scored.forged),
        weight: 0.5 / if scored.forged { forged } else { authentic } as f64,
        identity: scored.identity,
    };
    let rows: Vec<Row> = scored.iter().map(row).collect();
    let line = newton(&rows, kind)?;
    let Symmetric { a, b, c } = sandwich(&rows, line, kind);
    // Back to logits: slope = slope′/scale, intercept = intercept′ − slope′·shift/scale.
    let back = shift / scale;
    Ok(Calibration::Platt {
        slope: positive(line.slope / scale)?,
        intercept: line.intercept - line.slope * back,
        covariance: [a / (scale * scale), (b - back * a) / scale, c - 2.0 * back * b + back * back * a],
    })
}

/// Whether some threshold (0, where it cannot move) parts the classes, those that lie on it apart.
fn separable(scored: &[Scored], kind: Intercept) -> bool {
    let range = |forged: bool| {
        let class = scored.iter().filter(move |scored| scored.forged == forged).map(|scored| scored.logit);
        class.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    };
    let (authentic, forged) = (range(false), range(true));
    match kind {
        Intercept::Free => authentic.1 <= forged.0 || forged.1 <= authentic.0,
        Intercept::Zero => (authentic.1 <= 0.0 && forged.0 >= 0.0) || (forged.1 <= 0.0 && authentic.0 >= 0.0),
    }
}

/// Shift and scale that condition the fit; a line through 0 must not be shifted.
fn standard(scored: &[Scored], kind: Intercept) -> Result<(f64, f64), CalibrationError> {
    let mean = |value: &dyn Fn(f64) -> f64| {
        scored.iter().map(|scored| value(f64::from(scored.logit))).sum::<f64>() / scored.len() as f64
    };
    if kind == Intercept::Free && scored.iter().all(|other| other.logit == scored[0].logit) {
        return Err(CalibrationError::Constant);
    }
    let shift = if kind == Intercept::Free { mean(&|x| x) } else { 0.0 };
    let scale = mean(&|x| (x - shift) * (x - shift)).sqrt();
    if scale > 0.0 { Ok((shift, scale)) } else { Err(CalibrationError::Constant) }
}

/// The loss is strictly convex and smooth: Newton's method needs about ten steps.
const ITERATIONS_MAX: usize = 100;
/// Of the gradient, for a loss whose weights sum to 1: 10⁶ times what rounding leaves.
const GRADIENT_MAX: f64 = 1e-10;

/// Newton's method with backtracking, on a form of the loss that cannot overflow (Lin, Lin & Weng, 2007).
fn newton(rows: &[Row], kind: Intercept) -> Result<Line, CalibrationError> {
    let mut line = Line { slope: 0.0, intercept: 0.0 };
    let mut loss = loss_of(rows, line);
    let mut gradient = f64::INFINITY;
    for iteration in 0..ITERATIONS_MAX {
        let (ga, gb, hessian) = derivatives(rows, line, kind);
        gradient = ga.abs().max(gb.abs());
        if gradient <= GRADIENT_MAX {
            return Ok(line);
        }
        let inverse = hessian.inverse(kind);
        let (da, db) = (-(inverse.a * ga + inverse.b * gb), -(inverse.b * ga + inverse.c * gb));
        let slope = ga * da + gb * db;
        let mut step = 1.0;
        loop {
            let next = Line { slope: line.slope + step * da, intercept: line.intercept + step * db };
            let found = loss_of(rows, next);
            // Near the end the gain is below the loss's rounding.
            if found <= loss + 1e-4 * step * slope + 1e-15 {
                (line, loss) = (next, found);
                break;
            }
            step /= 2.0;
            if step < 1e-10 {
                return Err(CalibrationError::NotConverged { iterations: iteration, gradient });
            }
        }
    }
    Err(CalibrationError::NotConverged { iterations: ITERATIONS_MAX, gradient })
}

/// Σ w (log(1 + eᶻ) − t z).
fn loss_of(rows: &[Row], line: Line) -> f64 {
    let loss = |row: &Row| {
        let z = line.slope * row.x + line.intercept;
        row.weight * (z.max(0.0) + (-z.abs()).exp().ln_1p() - row.target * z)
    };
    rows.iter().map(loss).sum()
}

fn probability(line: Line, x: f64) -> f64 {
    1.0 / (1.0 + (-(line.slope * x + line.intercept)).exp())
}

/// Gradient by slope and by intercept, and the Hessian.
fn derivatives(rows: &[Row], line: Line, kind: Intercept) -> (f64, f64, Symmetric) {
    let (mut ga, mut gb, mut hessian) = (0.0, 0.0, Symmetric::default());
    for row in rows {
        let p = probability(line, row.x);
        let (residual, curvature) = (row.weight * (p - row.target), row.weight * p * (1.0 - p));
        ga += residual * row.x;
        gb += residual;
        hessian.a += curvature * row.x * row.x;
        hessian.b += curvature * row.x;
        hessian.c += curvature;
    }
    (ga, if kind == Intercept::Free { gb } else { 0.0 }, hessian)
}

/// H⁻¹ (Σ s sᵀ) H⁻¹ · G/(G − 1), with s the gradient of one identity's pictures.
fn sandwich(rows: &[Row], line: Line, kind: Intercept) -> Symmetric {
    let mut sums = BTreeMap::<u32, (f64, f64)>::new();
    for row in rows {
        let residual = row.weight * (probability(line, row.x) - row.target);
        let (a, b) = sums.entry(row.identity).or_default();
        *a += residual * row.x;
        *b += residual;
    }
    let inverse = derivatives(rows, line, kind).2.inverse(kind);
    let mut covariance = Symmetric::default();
    for (a, b) in sums.values() {
        let (u, v) = (inverse.a * a + inverse.b * b, inverse.b * a + inverse.c * b);
        covariance.a += u * u;
        covariance.b += u * v;
        covariance.c += v * v;
    }
    let count = sums.len() as f64;
    let correction = count / (count - 1.0);
    Symmetric { a: covariance.a * correction, b: covariance.b * correction, c: covariance.c * correction }
}

impl Symmetric {
    /// Without a free intercept, that of the slope alone.
    fn inverse(self, kind: Intercept) -> Self {
        if kind == Intercept::Zero {
            return Self { a: 1.0 / self.a, b: 0.0, c: 0.0 };
        }
        // A ridge (Lin, Lin & Weng) for the flat ends of the sigmoid, where curvature underflows.
        let (a, c) = (self.a + 1e-14, self.c + 1e-14);
        let determinant = a * c - self.b * self.b;
        Self { a: c / determinant, b: -self.b / determinant, c: a / determinant }
    }
}
