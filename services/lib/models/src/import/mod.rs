//! Checkpoints of others become bundles: `.pth` in either of PyTorch's formats, or safetensors. Offline only, for this is
//! where pickles are read.

mod dialect;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forensics::{Calibration, CropMode, Preprocessing};
use tch::{TchError, Tensor};

use crate::bundle::{self, Bundle, BundleError, Manifest, Storage};
use crate::pickle::PickleError;
use crate::tensor_file::TensorFileError;
use crate::two_stream::{Architecture, TwoStreamWeights, WeightMismatch, WeightsError};

pub use dialect::Dialect;
pub(crate) use read::tensor_of;

/// What a checkpoint does not say about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportOptions {
    /// The bundle's name, such as `two-stream`.
    pub name: String,
    /// The bundle's version.
    pub version: String,
    /// The size of the network.
    pub architecture: Architecture,
    /// How the network was shown its faces in training.
    pub crop: CropMode,
    /// Which face detector finds them, by name and version.
    pub face_detector: String,
    /// The licence of the weights.
    pub licence: String,
    /// How the weights came to be.
    pub training: String,
    /// How the bundle stores them.
    pub storage: Storage,
}

/// What was made of a checkpoint.
#[derive(Debug)]
pub struct ImportReport {
    /// The bundle, read back from where it was written.
    pub bundle: Bundle,
    /// Entries of the checkpoint that became tensors of the network.
    pub imported: usize,
    /// Entries that the dialect has and the network does not use.
    pub ignored: Vec<String>,
}

/// Why a checkpoint did not become a bundle. Every key is named as the checkpoint names it.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file is no checkpoint that is read here.
    #[error("{}: {source}", .path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PickleError,
    },
    /// The file is no usable safetensors file.
    #[error(transparent)]
    TensorFile(#[from] TensorFileError),
    /// Two entries stand for the same tensor.
    #[error("{one} and {other} are the same tensor of the network")]
    Ambiguous {
        /// An entry.
        one: String,
        /// Another one.
        other: String,
    },
    /// The entries are not the network's.
    #[error("{}: as a checkpoint of dialect {dialect}, {source}", .path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// The dialect it was read as.
        dialect: Dialect,
        /// Which keys are wrong, and how.
        source: WeightsError,
    },
    /// The bundle could not be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

impl ImportOptions {
    /// What is known of the published checkpoints of a dialect: their size, crop and licence.
    pub fn published(dialect: Dialect, name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: Architecture::FULL,
            crop: dialect.crop(),
            face_detector: "mtcnn-facenet-2.6.0".to_owned(),
            licence: dialect.licence().to_owned(),
            training: dialect.training().to_owned(),
            storage: Storage::F32,
        }
    }
}

/// Reads the checkpoint, maps its names to the official ones, and writes a bundle into `out`, which must be new or
/// empty. The bundle has no calibration and no thresholds, so its verdicts abstain until someone fits them.
pub fn import_checkpoint(
    path: &Path,
    dialect: Dialect,
    options: &ImportOptions,
    out: &Path,
) -> Result<ImportReport, ImportError> {
    let entries = read::entries(path)?;
    let (tensors, ignored) = official(entries, dialect)?;
    let imported = tensors.len();
    let weights = TwoStreamWeights::from_tensors(tensors, options.architecture).map_err(|source| {
        ImportError::Weights { path: path.to_owned(), dialect, source: in_dialect(source, dialect) }
    })?;
    let manifest = Manifest {
        name: options.name.clone(),
        version: options.version.clone(),
        architecture: options.architecture,
        fusion: dialect.fusion(),
        preprocessing: Preprocessing { crop: options.crop, face_detector: options.face_detector.clone() },
        calibration: Calibration::None,
        calibrated_on: String::new(),
        thresholds: None,
        licence: options.licence.clone(),
        training: options.training.clone(),
        measured: Vec::new(),
    };
    let bundle = bundle::write(out, &manifest, &weights, options.storage, None)?;
    Ok(ImportReport { bundle, imported, ignored })
}

/// `base` with both streams' convolutions and normalisations taken from an ImageNet Xception (its classifier is left out).
/// Every tensor of the streams must be there, in `base`'s sizes: only the full architecture has them.
pub fn imagenet_xception(path: &Path, base: &TwoStreamWeights) -> Result<TwoStreamWeights, ImportError> {
    let mut given = BTreeMap::new();
    for (name, tensor) in read::entries(path)? {
        let tensor = four_sided(&name, tensor)?;
        given.insert(name, tensor);
    }
    let mut tensors = BTreeMap::new();
    for (name, tensor) in base.tensors() {
        let stream = ["xception_rgb.model.", "xception_srm.model."]
            .iter()
            .find_map(|stream| name.strip_prefix(stream));
        let own = |part: &str| part.starts_with("last_linear") || part.ends_with("num_batches_tracked");
        match stream {
            Some(part) if !own(part) => {
                if let Some(found) = given.get(part) {
                    tensors.insert(name.clone(), found.shallow_clone());
                }
            }
            _ => drop(tensors.insert(name.clone(), tensor.shallow_clone())),
        }
    }
    TwoStreamWeights::from_tensors(tensors, base.architecture()).map_err(|source| ImportError::Weights {
        path: path.to_owned(),
        dialect: Dialect::Official,
        source,
    })
}

/// The tensors under their official names, and the entries that nobody needs.
fn official(
    entries: BTreeMap<String, Tensor>,
    dialect: Dialect,
) -> Result<(BTreeMap<String, Tensor>, Vec<String>), ImportError> {
    // Data-parallel training wraps the network in a module of that name: every key carries it, or none.
    let wrapped = entries.keys().all(|name| name.starts_with("module."));
    let mut tensors = BTreeMap::new();
    let mut sources: BTreeMap<String, String> = BTreeMap::new();
    let mut ignored = Vec::new();
    for (given, tensor) in entries {
        let bare = if wrapped { given.trim_start_matches("module.") } else { given.as_str() };
        let Some(name) = dialect.official_name(bare) else {
            ignored.push(given);
            continue;
        };
        if let Some(other) = sources.insert(name.clone(), given.clone()) {
            return Err(ImportError::Ambiguous { one: other, other: given });
        }
        tensors.insert(name.clone(), four_sided(&name, tensor)?);
    }
    Ok((tensors, ignored))
}

/// Pointwise weights as 1×1 kernels: the ImageNet checkpoint of this Xception, and what was trained from it with older
/// code, stores them as matrices.
fn four_sided(name: &str, tensor: Tensor) -> Result<Tensor, TchError> {
    if name.ends_with(".pointwise.weight") && tensor.dim() == 2 {
        return tensor.f_unsqueeze(-1)?.f_unsqueeze(-1);
    }
    Ok(tensor)
}

/// The error in the checkpoint's own names.
fn in_dialect(error: WeightsError, dialect: Dialect) -> WeightsError {
    let translate = |names: Vec<String>| names.iter().map(|name| dialect.own_name(name)).collect();
    match error {
        WeightsError::Mismatch(WeightMismatch { missing, unexpected, misshapen }) => {
            let misshapen =
                misshapen.into_iter().map(|(name, needed, found)| (dialect.own_name(&name), needed, found));
            WeightsError::Mismatch(WeightMismatch {
                missing: translate(missing),
                unexpected: translate(unexpected),
                misshapen: misshapen.collect(),
            })
        }
        WeightsError::NotFinite { names } => WeightsError::NotFinite { names: translate(names) },
        other => other,
    }
}
