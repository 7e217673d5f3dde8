//! Encoded pictures to [`Frame`]s, within limits that are checked on the header first.

mod config;
mod jpeg;
mod jpeg_layout;
mod orientation;
mod pixels;
mod png;
mod pool;
mod webp;

pub use config::{DecodeConfig, DecodeLimits, DecodeSettings};
pub use pool::{DecodePool, PoolError};

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

/// Decodes one picture on the calling thread: JPEG, PNG or WebP, told apart by their first bytes, to u8 RGB
/// with the orientation of its EXIF data applied, so that faces stand upright.
///
/// Transparent pixels lie on white, as a page shows them. Colour profiles are not applied. Of an animation
/// it is the first picture.
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Frame, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Truncated("0 bytes".to_owned()));
    }
    if bytes.len() > limits.bytes_max {
        let (length, most) = (bytes.len(), limits.bytes_max);
        return Err(DecodeError::TooLarge(format!("{length} bytes, the most is {most}")));
    }
    match Format::of(bytes)? {
        Format::Jpeg => jpeg::decode(bytes, limits),
        Format::Png => png::decode(bytes, limits),
        Format::WebP => webp::decode(bytes, limits),
    }
}

/// The supported formats.
enum Format {
    Jpeg,
    Png,
    WebP,
}

impl Format {
    /// By its first bytes, never by its name. A file that ends within them is cut, not unsupported.
    fn of(bytes: &[u8]) -> Result<Self, DecodeError> {
        let starts = |magic: &[u8]| {
            let length = bytes.len().min(magic.len());
            bytes[..length] == magic[..length]
        };
        let (jpeg, png, riff) = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF");
        let webp = starts(riff) && bytes.iter().skip(8).zip(b"WEBP").all(|(a, b)| a == b);
        let (format, length) = if starts(jpeg) {
            (Self::Jpeg, jpeg.len())
        } else if starts(png) {
            (Self::Png, png.len())
        } else if webp {
            (Self::WebP, 12)
        } else {
            let head: String = bytes.iter().take(8).flat_map(|b| b.escape_ascii()).map(char::from).collect();
            return Err(DecodeError::Unsupported(format!("starts with \"{head}\", not a JPEG, PNG or WebP")));
        };
        if bytes.len() < length {
            return Err(DecodeError::Truncated(format!("{} bytes", bytes.len())));
        }
        Ok(format)
    }
}

#[cfg(test)]
mod tests;
