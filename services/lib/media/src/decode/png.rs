//! PNG, by the `image` crate.

use std::io::Cursor;

use forensics::Frame;
use image::Limits;
use image::codecs::png::PngDecoder;

use super::{DecodeError, DecodeLimits, pixels};

const SIGNATURE_BYTES: usize = 8;

pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Frame, DecodeError> {
    check_chunks(bytes, limits)?;
    let mut within = Limits::no_limits();
    // Bounds what profiles and texts may unpack to.
    within.max_alloc = Some(limits.memory_max);
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), within).map_err(pixels::of_image)?;
    pixels::read(decoder, 0, limits)
}

/// Walks the chunks (PNG specification, 5.3): the size from the first, and that the last is there. The
/// decoder itself stops once it has the pixels, and would not miss the end.
fn check_chunks(bytes: &[u8], limits: &DecodeLimits) -> Result<(), DecodeError> {
    let cut = || DecodeError::Truncated(format!("no end chunk in {} bytes", bytes.len()));
    let word = |at: usize| {
        let word = bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
    };
    let mut at = SIGNATURE_BYTES;
    let kind = bytes.get(at + 4..at + 8).ok_or_else(cut)?;
    if kind != b"IHDR" {
        return Err(DecodeError::Broken("PNG: does not start with its header".to_owned()));
    }
    let (width, height) = (word(at + 8).ok_or_else(cut)?, word(at + 12).ok_or_else(cut)?);
    limits.check_size(width, height)?;
    loop {
        let length = word(at).ok_or_else(cut)? as usize;
        let end = at.checked_add(length).and_then(|end| end.checked_add(12)).ok_or_else(cut)?;
        if end > bytes.len() {
            return Err(cut());
        }
        if &bytes[at + 4..at + 8] == b"IEND" {
            return Ok(());
        }
        at = end;
    }
}
