use std::path::PathBuf;

/// Why a file is not read as a checkpoint. The file is at fault in every case but `Open` and `Io`.
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// The file could not be opened.
    #[error("cannot open {}: {source}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file could not be read, or ends too early.
    #[error("cannot read the checkpoint: {0}")]
    Io(#[from] std::io::Error),
    /// Neither of PyTorch's two formats.
    #[error("not a PyTorch checkpoint: neither a zip archive nor a pickle")]
    NotACheckpoint,
    /// The archive is damaged.
    #[error("damaged archive: {0}")]
    Archive(#[from] zip::result::ZipError),
    /// The pickle names something that is not on the list. A checkpoint of a state dict never needs it.
    #[error("the pickle asks for {name}, which is not allowed (byte {at})")]
    Forbidden {
        /// Module and name of the global, or the kind of persistent object.
        name: String,
        /// Where in the pickle.
        at: u64,
    },
    /// The pickle uses an opcode that no checkpoint needs.
    #[error("the pickle uses opcode {opcode:#04x}, which is not allowed (byte {at})")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Where in the pickle.
        at: u64,
    },
    /// The pickle contradicts itself.
    #[error("malformed pickle: {what} (byte {at})")]
    Malformed {
        /// What is wrong.
        what: String,
        /// Where in the pickle.
        at: u64,
    },
    /// The file asks for more than the limits give.
    #[error("the checkpoint exceeds the limit of {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A tensor's values do not fit its description.
    #[error("storage {key}: {what}")]
    Storage {
        /// The storage's key in the file.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// A well-formed file of a kind that is not read.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// There is no state dict in the tree.
    #[error("no state dict found: {0}")]
    NoStateDict(String),
}
