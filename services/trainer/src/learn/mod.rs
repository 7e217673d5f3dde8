//! Samples become weights, a step at a time.

pub(crate) mod learner;
pub(crate) mod loader;
pub(crate) mod localiser;
pub(crate) mod run_folder;
pub(crate) mod start;
pub(crate) mod training_set;
