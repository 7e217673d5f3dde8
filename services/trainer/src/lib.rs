//! Makes, measures and calibrates models: photos in, a calibrated bundle out.
//!
//! `data`: photos become faces on one side of a split. [`forge`]: forgeries are made of them, sample by number. `learn`:
//! batches are made ahead of the device, the learner takes a step, the run's folder keeps it. [`measure`]: what came out is
//! examined, measured and calibrated. [`show`]: plots, sheets and the card go into the bundle. `commands` is a file for
//! each thing that can be asked for. What all of them use lies beside: `picture`, `chance`, `ahead`, `files`, `engine` (what
//! computes), `telling` (what people see).
//!
//! The network is `models`' own: one definition serves training and inference. Nothing here serves, and no service depends
//! on it.
//!
//! Start reading at `commands/train`, which is the story; then [`forge`].
//!
//! Before you change anything: every sample is a pure function of (faces, seed, number), and a stop changes nothing;
//! draws of one identity are not independent, so whatever claims an interval resamples by identity; the test side is
//! decided by names before any training and touched once.

mod ahead;
mod arguments;
mod chance;
mod commands;
mod data;
mod engine;
mod files;
pub mod forge;
mod learn;
pub mod measure;
mod picture;
pub mod show;
mod telling;

pub use arguments::Arguments;
pub use commands::run;
pub use measure::calibrate::{Budgets, CalibrationError, Targets, platt, temperature, thresholds};
pub use measure::metrics;
pub use measure::metrics::{
    Confusion, Estimate, Outcomes, Ranking, Reliability, ReliabilityBin, Resampling, RocPoint, Scored,
    bootstrap,
};
pub use show::plots;
pub use show::sheet::{Mark, Sheet, Tile, TileError};
