//! The bytes of one pickle, counted.

use std::io::{ErrorKind, Read, Take};

use super::error::PickleError;

/// Reads a pickle's bytes up to a limit and knows where it is.
pub(super) struct Input<R> {
    source: Take<R>,
    bytes_max: u64,
    /// Bytes read so far.
    pub(super) at: u64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(source: R, bytes_max: u64) -> Self {
        Self { source: source.take(bytes_max), bytes_max, at: 0 }
    }

    pub(super) fn byte(&mut self) -> Result<u8, PickleError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(|error| self.ended(error))?;
        self.at += N as u64;
        Ok(bytes)
    }

    /// `length` bytes; memory grows with what really comes.
    pub(super) fn bytes(&mut self, length: u64) -> Result<Vec<u8>, PickleError> {
        let mut bytes = Vec::new();
        self.source.by_ref().take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(self.ended(ErrorKind::UnexpectedEof.into()));
        }
        self.at += length;
        Ok(bytes)
    }

    /// A name up to the end of its line. 256 bytes are more than any name on the list.
    pub(super) fn line(&mut self) -> Result<String, PickleError> {
        let mut bytes = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => break,
                _ if bytes.len() == 256 => return Err(self.malformed("a name of more than 256 bytes")),
                byte => bytes.push(byte),
            }
        }
        String::from_utf8(bytes).map_err(|_| self.malformed("a name that is not UTF-8"))
    }

    pub(super) fn malformed(&self, what: impl Into<String>) -> PickleError {
        PickleError::Malformed { what: what.into(), at: self.at }
    }

    fn ended(&self, error: std::io::Error) -> PickleError {
        match (self.source.limit(), error.kind()) {
            (0, ErrorKind::UnexpectedEof) => {
                PickleError::TooLarge { what: "bytes of pickle", limit: self.bytes_max }
            }
            _ => error.into(),
        }
    }
}
