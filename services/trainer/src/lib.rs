//! Makes, measures and calibrates models: photos in, a calibrated bundle out.
//!
//! Photos become faces (`faces`) on one side of a split (`split`); the [`forge`] makes forgeries of them, sample by
//! number (`pairs`), ahead of the device (`loader`); the `learner` takes a step, the `run_folder` keeps it. What came out
//! is judged (`exam`), measured ([`metrics`], `report`), calibrated ([`calibrate`]) and put into the bundle (`record`);
//! [`plots`] and [`sheet`] draw; `photo` forges a single one for a trial.
//!
//! The network is `models`' own: one definition serves training and inference. Nothing here serves, and no service depends
//! on it.
//!
//! Start reading at `train`, which is the story; then [`forge`].
//!
//! Before you change anything: every sample is a pure function of (faces, seed, number), and a stop changes nothing;
//! draws of one identity are not independent, so whatever claims an interval resamples by identity; the test side is
//! decided by names before any training and touched once.

mod ahead;
mod arguments;
pub mod calibrate;
mod card;
mod commands;
mod draw;
mod evaluate;
mod exam;
mod faces;
mod files;
pub mod forge;
mod labels;
mod learner;
mod loader;
mod material;
pub mod metrics;
mod pairs;
mod photo;
mod photos;
mod pictures;
pub mod plots;
mod preview;
mod progress;
mod record;
mod report;
mod run_folder;
mod samples;
mod shared;
pub mod sheet;
mod similar;
mod split;
mod start;
mod train;

pub use arguments::Arguments;
pub use calibrate::{Budgets, CalibrationError, Targets, platt, temperature, thresholds};
pub use commands::run;
pub use metrics::{
    Confusion, Estimate, Outcomes, Ranking, Reliability, ReliabilityBin, Resampling, RocPoint, Scored,
    bootstrap,
};
pub use sheet::{Mark, Sheet, Tile, TileError};
