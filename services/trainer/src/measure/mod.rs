//! What a model is asked, what its answers are worth, and what they mean.

pub mod calibrate;
pub(crate) mod exam;
pub mod metrics;
pub(crate) mod report;
pub(crate) mod samples;
