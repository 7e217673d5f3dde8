//! A restricted reader for PyTorch checkpoints, in both formats that `torch.save` has written: the zip archive
//! (since 1.6) and the sequence of pickles before it.
//!
//! Nothing in a file is executed. Pickle's opcodes build plain values in an arena; a global is only ever compared
//! with a list, and anything outside the list is an error that names it. Every length that a file claims is
//! checked against what is really there before memory is taken for it.
//!
//! Only the offline importer reads pickles; services read safetensors.

mod archive;
mod error;
mod globals;
mod input;
mod legacy;
mod machine;
mod opcodes;
mod state_dict;
mod storage;
#[cfg(test)]
mod tests;
mod tree;
mod value;
#[cfg(test)]
pub(crate) mod writer;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

pub use error::PickleError;
pub use value::{ElementType, TensorView, Value};

/// How much a file may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one pickle (the structure without the tensors' values).
    pub pickle_bytes: u64,
    /// Objects in one pickle, and nodes of the tree made from it.
    pub objects: usize,
    /// Nesting of the tree.
    pub depth: usize,
    /// Bytes of all tensors' values together.
    pub storage_bytes: u64,
}

impl Default for Limits {
    /// Chosen: the published checkpoints need 0.2 MB of pickle, 13,000 objects, depth 4 and 214 MB of values; an
    /// optimiser's state beside them is three times that.
    fn default() -> Self {
        Self { pickle_bytes: 32 << 20, objects: 1 << 20, depth: 32, storage_bytes: 2 << 30 }
    }
}

/// What a checkpoint holds.
#[derive(Debug)]
pub struct Checkpoint {
    /// The saved object.
    pub root: Value,
}

impl Checkpoint {
    /// Reads a file of either format.
    pub fn read(path: &Path) -> Result<Self, PickleError> {
        let file = File::open(path).map_err(|source| PickleError::Open { path: path.to_owned(), source })?;
        Self::read_from(BufReader::new(file), Limits::default())
    }

    /// Reads either format from anywhere.
    pub fn read_from(mut reader: impl Read + Seek, limits: Limits) -> Result<Self, PickleError> {
        let file_bytes = reader.seek(SeekFrom::End(0))?;
        reader.seek(SeekFrom::Start(0))?;
        let mut start = Vec::new();
        reader.by_ref().take(264).read_to_end(&mut start)?;
        reader.seek(SeekFrom::Start(0))?;
        let root = match start.as_slice() {
            [b'P', b'K', 3, 4, ..] => archive::read(reader, file_bytes, limits)?,
            [0x80, ..] => legacy::read(reader, file_bytes, limits)?,
            tar if tar.get(257..262) == Some(b"ustar") => {
                return Err(PickleError::Unsupported("a tar checkpoint from before PyTorch 0.4".to_owned()));
            }
            _ => return Err(PickleError::NotACheckpoint),
        };
        Ok(Self { root })
    }
}
