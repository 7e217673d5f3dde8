//! safetensors files: a JSON header, then raw values. Nothing in them can run.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use tch::{Kind, TchError, Tensor};

/// Tensors by name, and the free-form text of the header.
#[derive(Debug, Default)]
pub struct TensorFile {
    /// The tensors, on the CPU, of the file's types.
    pub tensors: BTreeMap<String, Tensor>,
    /// The header's `__metadata__`.
    pub metadata: HashMap<String, String>,
}

/// Why a tensor file cannot be used. Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// The file cannot be opened, read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Larger than any file of its kind has to be.
    #[error("{} is {bytes} bytes long, more than the {bytes_max} allowed", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// Not a well-formed safetensors file, or of a type that is not read here.
    #[error("{} is no usable safetensors file: {why}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// A header of the full network takes 70 kB; this leaves room and still bounds what a hostile file costs.
const HEADER_BYTES_MAX: u64 = 1 << 20;
/// The full network in f64 is 426 MB (chosen above it).
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 29;

impl TensorFile {
    /// Reads a file of at most `bytes_max` bytes.
    pub fn read(path: &Path, bytes_max: u64) -> Result<Self, TensorFileError> {
        Self::parse(path, &read_bytes(path, bytes_max)?)
    }

    /// Reads the bytes of the file `path` (which only errors name).
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, TensorFileError> {
        let malformed = |why: String| TensorFileError::Malformed { path: path.to_owned(), why };
        let header_bytes = match bytes.first_chunk::<8>() {
            Some(length) => u64::from_le_bytes(*length),
            None => return Err(malformed(format!("{} bytes are too few for a header", bytes.len()))),
        };
        if header_bytes > HEADER_BYTES_MAX {
            return Err(malformed(format!("a header of {header_bytes} bytes, more than {HEADER_BYTES_MAX}")));
        }
        let invalid = |error: SafeTensorError| malformed(error.to_string());
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
        let file = SafeTensors::deserialize(bytes).map_err(invalid)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let tensor = tensor_of(&view).map_err(|why| malformed(format!("{name}: {why}")))?;
            tensors.insert(name.to_owned(), tensor);
        }
        Ok(Self { tensors, metadata: header.metadata().clone().unwrap_or_default() })
    }

    /// The file's bytes. The order of the tensors is a function of their names and types alone.
    pub fn to_bytes(&self) -> Result<Vec<u8>, TchError> {
        let mut raw = Vec::with_capacity(self.tensors.len());
        for (name, tensor) in &self.tensors {
            raw.push((name, dtype_of(tensor.f_kind()?)?, shape_of(tensor), values_of(tensor)?));
        }
        let mut views = Vec::with_capacity(raw.len());
        for (name, dtype, shape, values) in &raw {
            let view = TensorView::new(*dtype, shape.clone(), values)
                .map_err(|error| TchError::Convert(error.to_string()))?;
            views.push((name.as_str(), view));
        }
        let metadata = (!self.metadata.is_empty()).then(|| self.metadata.clone());
        safetensors::serialize(views, metadata).map_err(|error| TchError::Convert(error.to_string()))
    }
}

/// The whole file, unless it is longer than `bytes_max`.
pub(crate) fn read_bytes(path: &Path, bytes_max: u64) -> Result<Vec<u8>, TensorFileError> {
    let io = |source| TensorFileError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    if bytes > bytes_max {
        return Err(TensorFileError::TooLarge { path: path.to_owned(), bytes, bytes_max });
    }
    let mut buffer = Vec::with_capacity(bytes as usize);
    // One byte beyond what was announced shows a file that grew meanwhile.
    file.take(bytes_max + 1).read_to_end(&mut buffer).map_err(io)?;
    if buffer.len() as u64 > bytes_max {
        return Err(TensorFileError::TooLarge {
            path: path.to_owned(),
            bytes: buffer.len() as u64,
            bytes_max,
        });
    }
    Ok(buffer)
}

const KINDS: [(Kind, Dtype); 8] = [
    (Kind::Float, Dtype::F32),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Double, Dtype::F64),
    (Kind::Uint8, Dtype::U8),
    (Kind::Int64, Dtype::I64),
    (Kind::Int, Dtype::I32),
    (Kind::Bool, Dtype::BOOL),
];

fn tensor_of(view: &TensorView<'_>) -> Result<Tensor, String> {
    let (kind, _) = KINDS
        .iter()
        .find(|(_, dtype)| *dtype == view.dtype())
        .ok_or_else(|| format!("values of type {:?} are not read", view.dtype()))?;
    let shape: Vec<i64> = view.shape().iter().map(|side| *side as i64).collect();
    Tensor::f_from_data_size(view.data(), &shape, *kind).map_err(|error| error.to_string())
}

fn dtype_of(kind: Kind) -> Result<Dtype, TchError> {
    let found = KINDS.iter().find(|(known, _)| *known == kind);
    found.map(|(_, dtype)| *dtype).ok_or_else(|| TchError::Convert(format!("{kind:?} is not written")))
}

fn shape_of(tensor: &Tensor) -> Vec<usize> {
    tensor.size().iter().map(|side| *side as usize).collect()
}

fn values_of(tensor: &Tensor) -> Result<Vec<u8>, TchError> {
    let tensor = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut values = vec![0; tensor.numel() * tensor.f_kind()?.elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut values, tensor.numel())?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_survives_the_round_trip() {
        let file = TensorFile {
            tensors: BTreeMap::from([
                ("b".to_owned(), Tensor::from_slice(&[1.5f32, -2.0]).view([1, 2])),
                ("a".to_owned(), Tensor::from_slice(&[7i64])),
                ("h".to_owned(), Tensor::from_slice(&[0.5f32]).to_kind(Kind::Half)),
            ]),
            metadata: HashMap::from([("salt".to_owned(), "x".to_owned())]),
        };
        let bytes = file.to_bytes().unwrap();
        let read = TensorFile::parse(Path::new("memory"), &bytes).unwrap();
        assert_eq!(read.metadata, file.metadata);
        for (name, tensor) in &file.tensors {
            assert_eq!(&read.tensors[name], tensor, "{name}");
        }
    }

    #[test]
    fn hostile_files_are_refused_with_their_name() {
        let path = Path::new("hostile.safetensors");
        let endless_header = u64::MAX.to_le_bytes();
        let pickle = b"\x80\x02}q\x00(X\x06\x00\x00\x00weightq\x01";
        for bytes in [&b""[..], b"\x01", &endless_header, pickle, b"\x02\0\0\0\0\0\0\0[]"] {
            let error = TensorFile::parse(path, bytes).unwrap_err().to_string();
            assert!(error.contains("hostile.safetensors"), "{error}");
        }
    }
}
