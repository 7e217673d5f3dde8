//! Encoded pictures to [`Frame`]s, within limits that are checked on the header first.

mod config;
mod pool;

pub use config::{DecodeConfig, DecodeLimits, DecodeSettings};
pub use pool::DecodePool;

use forensics::{FailureClass, Frame, FrameFinding, NotApplicableReason};

use crate::Disposition;

/// Why a picture has no pixels; each message says what is wrong with the bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Header or file beyond the limits.
    #[error("picture too large: {0}")]
    TooLarge(String),
    /// The file ends before the picture does.
    #[error("picture cut off: {0}")]
    Truncated(String),
    /// A broken picture.
    #[error("broken picture: {0}")]
    Broken(String),
    /// Not a picture in a supported format.
    #[error("unsupported media: {0}")]
    Unsupported(String),
    /// The pool is shutting down.
    #[error("the decode pool is closed")]
    Closed,
}

impl DecodeError {
    /// What is known about the frame; `None` where it is not the picture's fault.
    pub fn finding(&self) -> Option<FrameFinding> {
        match self {
            Self::TooLarge(_) => Some(FrameFinding::Unreadable(FailureClass::TooLarge)),
            Self::Truncated(_) => Some(FrameFinding::Unreadable(FailureClass::Truncated)),
            Self::Broken(_) => Some(FrameFinding::Unreadable(FailureClass::Decode)),
            Self::Unsupported(_) => Some(FrameFinding::NothingToJudge(NotApplicableReason::UnsupportedMedia)),
            Self::Closed => None,
        }
    }

    /// What to do next. An unsupported picture is rejected as DECODE here; its [`DecodeError::finding`] is
    /// the milder NOT_APPLICABLE(UNSUPPORTED_MEDIA), so ask for that first.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::TooLarge(_) => Disposition::Reject(FailureClass::TooLarge),
            Self::Truncated(_) => Disposition::Reject(FailureClass::Truncated),
            Self::Broken(_) | Self::Unsupported(_) => Disposition::Reject(FailureClass::Decode),
            Self::Closed => Disposition::Fatal,
        }
    }
}

/// Decodes one picture on the calling thread: JPEG (orientation applied), PNG or WebP, told apart by their
/// first bytes, to u8 RGB. Of an animation, the first picture.
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Frame, DecodeError> {
    let _ = (bytes, limits);
    Err(DecodeError::Unsupported("not built yet".to_owned()))
}
