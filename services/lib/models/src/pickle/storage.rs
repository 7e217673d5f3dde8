//! The storages that a pickle refers to by key, before and after their bytes are read.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use super::error::PickleError;
use super::value::ElementType;

/// Storages in the order of their first mention.
#[derive(Debug, Default)]
pub(super) struct StorageTable {
    by_key: HashMap<Arc<str>, usize>,
    pub(super) declared: Vec<Declared>,
}

/// What the pickle says about one storage.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    pub(super) key: Arc<str>,
    pub(super) element: ElementType,
    pub(super) bytes: u64,
}

impl StorageTable {
    /// The index of the storage; every mention must agree on its size.
    pub(super) fn declare(&mut self, new: Declared) -> Result<usize, PickleError> {
        if let Some(&index) = self.by_key.get(&new.key) {
            let known = &self.declared[index];
            if known.bytes != new.bytes {
                let what = format!("declared with {} bytes and with {}", known.bytes, new.bytes);
                return Err(PickleError::Storage { key: new.key.to_string(), what });
            }
            return Ok(index);
        }
        self.by_key.insert(new.key.clone(), self.declared.len());
        self.declared.push(new);
        Ok(self.declared.len() - 1)
    }

    pub(super) fn index_of(&self, key: &str) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// Refuses before anything is allocated.
    pub(super) fn within(&self, limit: u64) -> Result<(), PickleError> {
        let total = self.declared.iter().fold(0_u64, |sum, storage| sum.saturating_add(storage.bytes));
        if total > limit {
            return Err(PickleError::TooLarge { what: "bytes of tensors", limit });
        }
        Ok(())
    }
}

impl Declared {
    /// Reads exactly the declared bytes. Memory grows with what really comes, for the size is only a claim.
    pub(super) fn read(&self, source: impl Read, file_bytes: u64) -> Result<Arc<[u8]>, PickleError> {
        let mut bytes = Vec::with_capacity(self.bytes.min(file_bytes) as usize);
        source.take(self.bytes).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != self.bytes {
            let what = format!("{} bytes declared, {} found", self.bytes, bytes.len());
            return Err(PickleError::Storage { key: self.key.to_string(), what });
        }
        Ok(bytes.into())
    }
}
