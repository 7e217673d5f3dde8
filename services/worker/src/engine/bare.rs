//! A build without libtorch: it has no network to offer.

use ops::{Exit, ExitReason};

use super::{EngineConfig, FaceFactory, ForgeryFactory};

/// Scripted engines need nothing.
pub(super) fn prepare_process() {}

pub(super) fn forgery(config: &EngineConfig) -> Result<ForgeryFactory, Exit> {
    Err(refuse("worker.engine.model", &config.model))
}

pub(super) fn faces(config: &EngineConfig) -> Result<FaceFactory, Exit> {
    Err(refuse("worker.engine.faces", &config.faces))
}

fn refuse(key: &str, wanted: &str) -> Exit {
    ExitReason::Config.because(format_args!(
        "{key}: {wanted} needs the network, which this build leaves out; build with the feature torch, or say scripted"
    ))
}
