//! Everything that touches libtorch: the two-stream network, the face detector, model bundles, import, devices.
//!
//! In come batches of face crops (u8 RGB `[n, 256, 256, 3]`) and frames; out go logits, embeddings and attention maps, and
//! faces. [`TwoStream`] implements `forensics::ForgeryDetector`; a model arrives as a [`bundle`].
//!
//! It never fetches, decodes or crops, never talks to a log or a network, and no service reads a pickle through it:
//! that is left to the offline `import`. Its tensors do not leave it.
//!
//! Start reading at `two_stream/network.rs`, which is the paper's figure as code; then `bundle` and `two_stream/detector.rs`.
//!
//! Before you change anything: outputs are pinned to the published code's (`parity`), unsafe code lives in `shim` alone,
//! and `main` must call [`prepare_process`] first, or libtorch wastes half of the CPU.

pub mod bundle;
pub mod device;
pub mod face_detector;
pub mod import;
pub mod parity;
pub mod pickle;
mod process;
mod shim;
pub mod tensor_file;
pub mod two_stream;
mod upload;

pub use bundle::Bundle;
pub use device::{DeviceChoice, DeviceConfig, PrecisionChoice};
pub use process::prepare_process;
pub use shim::InferenceMode;
pub use two_stream::{Architecture, Fusion, LoadError, TwoStream, TwoStreamWeights, WeightsError};
