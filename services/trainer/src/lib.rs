//! The trainer's pure rooms: how good scores are, what they mean, and pictures of both.
//!
//! In come judged pictures ([`Scored`]: a logit, the truth, an identity); out go metrics with intervals, a
//! [`forensics::Calibration`], [`forensics::Thresholds`], and SVG: curves, diagrams and contact sheets.
//!
//! It never reads or writes a file, knows no network and no clock; every draw is a function of its seed, so the same
//! scores give the same report to the last digit, whatever the number of threads.
//!
//! Start reading at [`metrics`], then [`calibrate`]; [`plots`] and [`sheet`] only draw.
//!
//! Before you change anything: `tests/sklearn.rs` holds the metrics to scikit-learn's definitions, and draws of one
//! identity are not independent: whatever claims an interval resamples or sums by identity.

pub mod calibrate;
pub mod metrics;
pub mod plots;
pub mod sheet;

pub use calibrate::{Budgets, CalibrationError, Targets, platt, temperature, thresholds};
pub use metrics::{
    Confusion, Estimate, Outcomes, Ranking, Reliability, ReliabilityBin, Resampling, RocPoint, Scored,
    bootstrap,
};
pub use sheet::{Mark, Sheet, Tile, TileError};
