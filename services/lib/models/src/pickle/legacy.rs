//! The format before PyTorch 1.6: pickles one after another (magic number, protocol, system, the object, the keys of
//! the storages), then each storage as a 64-bit count of elements and its raw bytes.

use std::io::Read;
use std::sync::Arc;

use super::Limits;
use super::error::PickleError;
use super::machine;
use super::value::Value;

/// `torch.serialization.MAGIC_NUMBER`.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// `torch.serialization.PROTOCOL_VERSION`.
const PROTOCOL: i128 = 1001;

/// Reads a checkpoint of `file_bytes` bytes.
pub(super) fn read(mut reader: impl Read, file_bytes: u64, limits: Limits) -> Result<Value, PickleError> {
    let plain = |reader: &mut dyn Read| machine::read_pickle(reader, limits)?.into_value(&[], limits);
    match plain(&mut reader)? {
        Value::Int(MAGIC) => {}
        _ => return Err(PickleError::NotACheckpoint),
    }
    match plain(&mut reader)? {
        Value::Int(PROTOCOL) => {}
        other => return Err(PickleError::Unsupported(format!("checkpoint protocol {other:?}"))),
    }
    refuse_big_endian(&plain(&mut reader)?)?;
    let pickle = machine::read_pickle(&mut reader, limits)?;
    pickle.storages.within(limits.storage_bytes)?;
    let Value::List(keys) = plain(&mut reader)? else {
        return Err(PickleError::Unsupported("a checkpoint without a list of storages".to_owned()));
    };
    let mut storages: Vec<Option<Arc<[u8]>>> = vec![None; pickle.storages.declared.len()];
    for key in keys {
        let key = match key {
            Value::Text(key) => key,
            Value::Int(key) => key.to_string().into(),
            other => return Err(storage(&format!("{other:?}"), "a key that is not text")),
        };
        let index = pickle.storages.index_of(&key).ok_or_else(|| storage(&key, "not used by any tensor"))?;
        let declared = &pickle.storages.declared[index];
        let mut count = [0; 8];
        reader.read_exact(&mut count)?;
        let bytes = u64::from_le_bytes(count).checked_mul(declared.element.size() as u64);
        if bytes != Some(declared.bytes) {
            return Err(storage(&key, "its size differs from the tensors' claim"));
        }
        storages[index] = Some(declared.read(&mut reader, file_bytes)?);
    }
    let found = storages.into_iter().zip(&pickle.storages.declared);
    let storages: Result<Vec<_>, _> = found
        .map(|(bytes, declared)| bytes.ok_or_else(|| storage(&declared.key, "not in the file")))
        .collect();
    pickle.into_value(&storages?, limits)
}

fn storage(key: &str, what: &str) -> PickleError {
    PickleError::Storage { key: key.to_owned(), what: what.to_owned() }
}

fn refuse_big_endian(system: &Value) -> Result<(), PickleError> {
    let Value::Dict(entries) = system else {
        return Err(PickleError::Unsupported("a checkpoint without system information".to_owned()));
    };
    let is_little = entries.iter().any(|(key, value)| {
        matches!((key, value), (Value::Text(key), Value::Bool(true)) if &**key == "little_endian")
    });
    if is_little { Ok(()) } else { Err(PickleError::Unsupported("a big-endian checkpoint".to_owned())) }
}
