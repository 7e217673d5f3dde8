//! The two-stream network: RGB and noise, after Luo, Zhang, Yan, Liu, *Generalizing Face Forgery Detection with
//! High-frequency Features*, CVPR 2021 (arXiv 2103.12376).
//!
//! Start at [`Network::forward_observed`]: it reads like the paper's figure. Every module is written once: built, it is
//! the published one; its `prepare` gives the inference form with the same outputs.

mod architecture;
mod attention;
mod cross_modal;
mod detector;
mod layers;
mod network;
mod placed;
mod scope;
mod seeded;
mod srm;
mod weights;
mod xception;

pub use architecture::{Architecture, Fusion, INPUT_SIDE, InvalidArchitecture};
pub use detector::{ATTENTION_SIDE, Evidence, LoadError, TwoStream};
pub use layers::Phase;
pub use network::{Network, NetworkOutput, StageObserver, trainable};
pub use placed::{PlacedNetwork, cpu_piece};
pub use scope::{Entry, Role};
pub use weights::{TwoStreamWeights, WeightMismatch, WeightsError, entries};

#[cfg(test)]
mod tests;
