//! A checkpoint's tensors by their own names, whatever the format.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use tch::{Kind, TchError, Tensor};

use super::ImportError;
use crate::pickle::{Checkpoint, ElementType, PickleError, TensorView};
use crate::tensor_file::{FILE_BYTES_MAX, TensorFile};

/// Every tensor of the checkpoint. The format is told by the first bytes, not by the file's name.
pub(super) fn entries(path: &Path) -> Result<BTreeMap<String, Tensor>, ImportError> {
    if is_safetensors(path)? {
        return Ok(TensorFile::read(path, FILE_BYTES_MAX)?.tensors);
    }
    let pickle = |source| ImportError::Checkpoint { path: path.to_owned(), source };
    let views = Checkpoint::read(path).and_then(|checkpoint| checkpoint.state_dict()).map_err(pickle)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in views {
        tensors.insert(name, tensor_of(&view)?);
    }
    Ok(tensors)
}

/// A safetensors file is a length of eight bytes and then JSON; at that place neither of PyTorch's formats has a brace.
fn is_safetensors(path: &Path) -> Result<bool, ImportError> {
    let checkpoint = |source| ImportError::Checkpoint { path: path.to_owned(), source };
    let file =
        File::open(path).map_err(|source| checkpoint(PickleError::Open { path: path.to_owned(), source }))?;
    let mut start = Vec::new();
    file.take(9).read_to_end(&mut start).map_err(|source| checkpoint(PickleError::Io(source)))?;
    Ok(start.get(8) == Some(&b'{'))
}

/// The view's values as a tensor of its own, on the CPU.
pub(crate) fn tensor_of(view: &TensorView) -> Result<Tensor, TchError> {
    let kind = match view.element() {
        ElementType::F64 => Kind::Double,
        ElementType::F32 => Kind::Float,
        ElementType::F16 => Kind::Half,
        ElementType::Bf16 => Kind::BFloat16,
        ElementType::I64 => Kind::Int64,
        ElementType::I32 => Kind::Int,
        ElementType::I16 => Kind::Int16,
        ElementType::I8 => Kind::Int8,
        ElementType::U8 => Kind::Uint8,
        ElementType::Bool => Kind::Bool,
    };
    let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    Tensor::f_from_data_size(&view.row_major(), &shape, kind)
}
