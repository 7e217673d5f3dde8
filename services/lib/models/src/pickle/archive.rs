//! The zip format (PyTorch 1.6 and later): `<name>/data.pkl`, `<name>/data/<key>` for each storage, `<name>/byteorder`.

use std::io::{ErrorKind, Read, Seek};
use std::sync::Arc;

use zip::ZipArchive;

use super::Limits;
use super::error::PickleError;
use super::machine;
use super::value::Value;

/// Reads a checkpoint of `file_bytes` bytes; its entries may be stored (as PyTorch writes them) or deflated.
pub(super) fn read(reader: impl Read + Seek, file_bytes: u64, limits: Limits) -> Result<Value, PickleError> {
    let mut archive = ZipArchive::new(reader)?;
    if archive.len() > limits.objects {
        return Err(PickleError::TooLarge { what: "archive entries", limit: limits.objects as u64 });
    }
    let folder = folder(&archive)?;
    if archive.index_for_name(&format!("{folder}constants.pkl")).is_some() {
        return Err(PickleError::Unsupported(
            "a TorchScript archive; save the module's state_dict()".to_owned(),
        ));
    }
    refuse_big_endian(&mut archive, &format!("{folder}byteorder"))?;
    let pickle = machine::read_pickle(
        std::io::BufReader::new(archive.by_name(&format!("{folder}data.pkl"))?),
        limits,
    )?;
    pickle.storages.within(limits.storage_bytes)?;
    let mut storages: Vec<Arc<[u8]>> = Vec::new();
    for declared in &pickle.storages.declared {
        let mut entry = archive.by_name(&format!("{folder}data/{}", declared.key))?;
        if entry.size() != declared.bytes {
            let what = format!("{} bytes declared, {} in the archive", declared.bytes, entry.size());
            return Err(PickleError::Storage { key: declared.key.to_string(), what });
        }
        storages.push(declared.read(&mut entry, file_bytes)?);
        // The end of the entry is where its checksum is compared.
        entry
            .read_exact(&mut [0])
            .err()
            .filter(|error| error.kind() != ErrorKind::UnexpectedEof)
            .map_or(Ok(()), Err)?;
    }
    pickle.into_value(&storages, limits)
}

/// The one folder that holds `data.pkl`, with its slash.
fn folder<R: Read + Seek>(archive: &ZipArchive<R>) -> Result<String, PickleError> {
    let mut folders = Vec::new();
    for name in archive.file_names() {
        let name = name?;
        let folder =
            name.strip_suffix("data.pkl").filter(|folder| folder.is_empty() || folder.ends_with('/'));
        folders.extend(folder.map(str::to_owned));
    }
    match folders.as_slice() {
        [folder] => Ok(folder.clone()),
        [] => Err(PickleError::NotACheckpoint),
        [one, two, ..] => {
            Err(PickleError::Unsupported(format!("an archive with two pickles, in {one:?} and {two:?}")))
        }
    }
}

/// The file says `little` or `big`; archives from before PyTorch 2.1 have none and are little-endian.
fn refuse_big_endian<R: Read + Seek>(archive: &mut ZipArchive<R>, name: &str) -> Result<(), PickleError> {
    let entry = match archive.by_name(name) {
        Err(zip::result::ZipError::FileNotFound) => return Ok(()),
        entry => entry?,
    };
    let mut order = Vec::new();
    entry.take(16).read_to_end(&mut order)?;
    match order.as_slice() {
        b"little" => Ok(()),
        _ => Err(PickleError::Unsupported(format!("byte order {:?}", String::from_utf8_lossy(&order)))),
    }
}
