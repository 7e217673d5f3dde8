//! What libtorch needs from its process before the first tensor.

/// Call it first in `main`.
pub fn prepare_process() {}
