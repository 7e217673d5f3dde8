//! The published weights: three pickles once, one safetensors file since.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tch::{TchError, Tensor};

use crate::device::DeviceError;
use crate::import::tensor_of;
use crate::pickle::{Checkpoint, PickleError};
use crate::tensor_file::{TensorFile, TensorFileError, read_bytes};

/// SHA-256 of the file that [`convert`] makes from the weights in the wheel of facenet-pytorch 2.6.0.
pub const SHA256: &str = "08eb19fdcbbc10aa08affd3e75f70d5bb60ee88610560b6e5ff6ad3fa111bf48";

/// The file has 2.0 MB; anything much larger is another one.
const BYTES_MAX: u64 = 4 << 20;

/// Why the face detector has no weights.
#[derive(Debug, thiserror::Error)]
pub enum FaceWeightsError {
    /// One of the published files cannot be read.
    #[error("{}: {source}", .path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PickleError,
    },
    /// The safetensors file cannot be read or written.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// Well-formed, but not the published weights: the detections would be others.
    #[error("{} holds other weights than facenet-pytorch 2.6.0: SHA-256 {found}, expected {}", .path.display(), SHA256)]
    Digest {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: String,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
    /// The configured device is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Writes one safetensors file from the three that facenet-pytorch ships (legacy pickles, MIT); the result is checked
/// before it is put in place.
pub fn convert(pnet: &Path, rnet: &Path, onet: &Path, out: &Path) -> Result<(), FaceWeightsError> {
    let mut file = TensorFile::default();
    for (network, path) in [("pnet", pnet), ("rnet", rnet), ("onet", onet)] {
        let pickle = |source| FaceWeightsError::Pickle { path: path.to_owned(), source };
        let tensors =
            Checkpoint::read(path).and_then(|checkpoint| checkpoint.state_dict()).map_err(pickle)?;
        for (name, view) in tensors {
            let tensor = tensor_of(&view)?;
            file.tensors.insert(format!("{network}.{name}"), tensor);
        }
    }
    file.metadata = HashMap::from([("source".to_owned(), "facenet-pytorch 2.6.0 (MIT)".to_owned())]);
    let bytes = file.to_bytes()?;
    check(out, &bytes)?;
    replace(out, &bytes).map_err(|source| TensorFileError::Io { path: out.to_owned(), source })?;
    Ok(())
}

/// Reads what [`convert`] wrote.
pub(super) fn load(path: &Path) -> Result<BTreeMap<String, Tensor>, FaceWeightsError> {
    let bytes = read_bytes(path, BYTES_MAX)?;
    check(path, &bytes)?;
    Ok(TensorFile::parse(path, &bytes)?.tensors)
}

fn check(path: &Path, bytes: &[u8]) -> Result<(), FaceWeightsError> {
    let found = hex::encode(Sha256::digest(bytes));
    if found == SHA256 { Ok(()) } else { Err(FaceWeightsError::Digest { path: path.to_owned(), found }) }
}

/// A file is there whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = folder.join(name);
    let mut file = std::fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}
