//! A model as a folder: `manifest.toml`, `weights.safetensors`, `golden.safetensors`.
//!
//! Nothing of it is used before its digest was checked; only safetensors are read, whose headers are bounded. The golden
//! vectors are inputs with the logits that these weights gave where the bundle was written; [`crate::TwoStream`] compares
//! with them when it loads and whenever it is asked.

mod golden;
mod manifest;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use forensics::{Calibration, CropBatch, Preprocessing};
use sha2::{Digest, Sha256};
use tch::{Kind, TchError};

use crate::device::brief;
use crate::tensor_file::{FILE_BYTES_MAX, TensorFile, TensorFileError, read_bytes};
use crate::two_stream::{Architecture, Fusion, TwoStreamWeights, WeightsError};
#[cfg(test)]
pub(crate) use golden::patterns;
pub(crate) use golden::{Golden, pairs_of, pixels_of};
use manifest::{Files, Pinned};
pub use manifest::{Interval, Manifest, ManifestError, Measured, NAME, is_name};

/// A model in memory, checked.
#[derive(Debug)]
pub struct Bundle {
    /// What it says about itself.
    pub manifest: Manifest,
    /// Its tensors.
    pub weights: TwoStreamWeights,
    /// SHA-256 over weights, dialect and calibration: the model's identity.
    pub sha256: [u8; 32],
    pub(crate) golden: Golden,
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// As they are.
    F32,
    /// Halved, in size and in digits.
    F16,
}

/// Why a bundle is not used, or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The manifest is not one.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file is not the one that the manifest names.
    #[error("{} has sha256 {found}, the manifest's {key}.sha256 is {expected}", .path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// The manifest's key: `weights` or `golden`.
        key: &'static str,
        /// The digest that the manifest names.
        expected: String,
        /// The digest of the file.
        found: String,
    },
    /// A tensor file cannot be used.
    #[error(transparent)]
    TensorFile(#[from] TensorFileError),
    /// The tensors are not the network's.
    #[error("{}: {source}", .path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: WeightsError,
    },
    /// The golden vectors are not ones.
    #[error("{}: {why}", .path.display())]
    Golden {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        why: String,
    },
    /// The manifest would be longer than anyone reads.
    #[error("{}: {bytes} bytes, and a manifest has {MANIFEST_BYTES_MAX} at most", .path.display())]
    ManifestSize {
        /// The manifest.
        path: PathBuf,
        /// What it would have.
        bytes: usize,
    },
    /// There is a bundle already, and it is never written over.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(String),
}

const MANIFEST: &str = "manifest.toml";
const WEIGHTS: &str = "weights.safetensors";
const GOLDEN: &str = "golden.safetensors";
/// A manifest is a page of text.
const MANIFEST_BYTES_MAX: u64 = 64 << 10;
/// Golden inputs are a few crops.
const GOLDEN_BYTES_MAX: u64 = 16 << 20;

impl Bundle {
    /// Reads the bundle in `folder`. Nothing is used whose digest is not the manifest's.
    pub fn read(folder: &Path) -> Result<Self, BundleError> {
        let (manifest, files) = read_manifest(&folder.join(MANIFEST))?;
        let (path, bytes) = read_pinned(folder, "weights", &files.weights, FILE_BYTES_MAX)?;
        let tensors = TensorFile::parse(&path, &bytes)?.tensors;
        drop(bytes);
        let weights = TwoStreamWeights::from_tensors(tensors, manifest.architecture)
            .map_err(|source| BundleError::Weights { path, source })?;

        let (path, bytes) = read_pinned(folder, "golden", &files.golden, GOLDEN_BYTES_MAX)?;
        let golden = Golden::from_file(&TensorFile::parse(&path, &bytes)?)
            .map_err(|why| BundleError::Golden { path, why })?;
        let sha256 = identity(&manifest, &files.weights.sha256);
        Ok(Self { manifest, weights, sha256, golden })
    }

    /// A model that nobody trained: the weights that `salt` stands for, without calibration or thresholds, so that every
    /// verdict abstains. For demonstrations and tests.
    pub fn seeded(
        architecture: Architecture,
        salt: &str,
        preprocessing: Preprocessing,
    ) -> Result<Self, BundleError> {
        let refused = |source| BundleError::Weights { path: "seeded weights".into(), source };
        let weights = TwoStreamWeights::seeded(architecture, salt).map_err(refused)?;
        let manifest = Manifest {
            name: "two-stream-untrained".to_owned(),
            version: format!("seeded-{}-{}", architecture.width_percent(), architecture.middle_blocks()),
            architecture,
            fusion: Fusion::Official,
            preprocessing,
            calibration: Calibration::None,
            calibrated_on: String::new(),
            thresholds: None,
            licence: "none needed: the weights are a function of a word".to_owned(),
            training: format!("none: seeded with {salt:?}"),
            measured: Vec::new(),
        };
        let golden = Golden::compute(&weights, manifest.fusion, &golden::patterns())?;
        // The words stand for the weights, so their digest does too.
        let words = hex::encode(Sha256::digest(format!("{} {salt}", manifest.version)));
        let sha256 = identity(&manifest, &words);
        Ok(Self { manifest, weights, sha256, golden })
    }
}

impl Manifest {
    /// What the bundle in `folder` says about itself, for those who show it; no digest is checked.
    pub fn read(folder: &Path) -> Result<Self, BundleError> {
        read_manifest(&folder.join(MANIFEST)).map(|(manifest, _)| manifest)
    }
}

/// Writes a bundle into `folder`, which must be new or empty, and returns it as read back. The logits of `golden_inputs`
/// are what every later load must reproduce; without any, fixed patterns are taken.
pub fn write(
    folder: &Path,
    manifest: &Manifest,
    weights: &TwoStreamWeights,
    storage: Storage,
    golden_inputs: Option<&CropBatch>,
) -> Result<Bundle, BundleError> {
    let io = |source| BundleError::Io { path: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(io)?;
    if fs::read_dir(folder).map_err(io)?.next().is_some() {
        return Err(BundleError::Exists(folder.to_owned()));
    }
    let stored = stored(weights, storage)?;
    // The golden logits are those of the weights as stored, not as given.
    let tensors = stored.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
    let rounded = TwoStreamWeights::from_tensors(tensors.collect(), weights.architecture())
        .map_err(|source| BundleError::Weights { path: folder.join(WEIGHTS), source })?;
    let patterns = golden::patterns();
    let golden = Golden::compute(&rounded, manifest.fusion, golden_inputs.unwrap_or(&patterns))?;
    let files = Files {
        weights: write_pinned(folder, WEIGHTS, &stored)?,
        golden: write_pinned(folder, GOLDEN, &golden.to_file()?)?,
    };
    // The manifest comes last: a folder without one is no bundle.
    let path = folder.join(MANIFEST);
    write_file(&path, text_of(manifest, files, &path)?.as_bytes())?;
    Bundle::read(folder)
}

/// Changes what the bundle in `folder` says about itself; its weights and golden vectors stay. Written beside and renamed:
/// there is the old manifest or the new one. Size and dialect must stay, or the bundle no longer loads.
pub fn amend(folder: &Path, change: impl FnOnce(&mut Manifest)) -> Result<Manifest, BundleError> {
    let path = folder.join(MANIFEST);
    let (mut manifest, files) = read_manifest(&path)?;
    change(&mut manifest);
    let text = text_of(&manifest, files, &path)?;
    // What would not be read is not written.
    Manifest::parse(&path, &text)?;
    let beside = path.with_extension("new");
    let io = |source| BundleError::Io { path: beside.clone(), source };
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => write_file(&beside, text.as_bytes())?,
    }
    fs::rename(&beside, &path).map_err(io)?;
    Ok(manifest)
}

fn read_manifest(path: &Path) -> Result<(Manifest, Files), BundleError> {
    let text = String::from_utf8_lossy(&read_bytes(path, MANIFEST_BYTES_MAX)?).into_owned();
    Ok(Manifest::parse(path, &text)?)
}

/// The manifest's text; `path` is what an error names.
fn text_of(manifest: &Manifest, files: Files, path: &Path) -> Result<String, BundleError> {
    let text = manifest.to_text(files);
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(BundleError::ManifestSize { path: path.to_owned(), bytes: text.len() });
    }
    Ok(text)
}

/// The tensors as they go into the file. Only what is large is halved: statistics and biases keep their digits.
fn stored(weights: &TwoStreamWeights, storage: Storage) -> Result<TensorFile, BundleError> {
    let mut file = TensorFile::default();
    for (name, tensor) in weights.tensors() {
        let halved = storage == Storage::F16 && tensor.dim() >= 2;
        let tensor = if halved { tensor.f_to_kind(Kind::Half)? } else { tensor.shallow_clone() };
        file.tensors.insert(name.clone(), tensor);
    }
    Ok(file)
}

fn write_pinned(folder: &Path, name: &str, file: &TensorFile) -> Result<Pinned, BundleError> {
    let bytes = file.to_bytes()?;
    write_file(&folder.join(name), &bytes)?;
    Ok(Pinned { file: name.to_owned(), sha256: hex::encode(Sha256::digest(&bytes)) })
}

/// On disk when this returns.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), BundleError> {
    let written = fs::File::create_new(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|source| BundleError::Io { path: path.to_owned(), source })
}

/// The file's bytes, if they are the ones that the manifest means.
fn read_pinned(
    folder: &Path,
    key: &'static str,
    pinned: &Pinned,
    bytes_max: u64,
) -> Result<(PathBuf, Vec<u8>), BundleError> {
    let path = folder.join(&pinned.file);
    let bytes = read_bytes(&path, bytes_max)?;
    let found = hex::encode(Sha256::digest(&bytes));
    if found != pinned.sha256 {
        return Err(BundleError::Digest { path, key, expected: pinned.sha256.clone(), found });
    }
    Ok((path, bytes))
}

/// A model is its weights, how they are wired, and what its logits mean.
fn identity(manifest: &Manifest, weights_sha256: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(weights_sha256);
    hash.update(manifest.fusion.name());
    hash.update(manifest.calibration.digest_bytes());
    hash.finalize().into()
}

impl From<TchError> for BundleError {
    fn from(error: TchError) -> Self {
        Self::Torch(brief(&error))
    }
}

#[cfg(test)]
mod tests;
