//! WebP, by the `image` crate.

use std::io::Cursor;

use forensics::Frame;
use image::codecs::webp::WebPDecoder;

use super::{DecodeError, DecodeLimits, pixels};

/// Bytes a pixel besides the output: planes of YUV (1.5), an opacity plane unpacked from RGBA (5), or the
/// RGBA of a lossless picture (4); the frame of an animation beside its canvas. Read off `image-webp` 0.2.
const WORKING_BYTES: u64 = 7;

pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Frame, DecodeError> {
    check_chunks(bytes, limits)?;
    let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(pixels::of_image)?;
    pixels::read(decoder, WORKING_BYTES, limits)
}

/// Walks the RIFF chunks (RFC 9649, 2.3): that the file is whole, and that every size in it is allowed; a
/// small canvas may hold the header of a huge picture.
fn check_chunks(bytes: &[u8], limits: &DecodeLimits) -> Result<(), DecodeError> {
    let declared = u64::from(word(bytes, 4).unwrap_or(0)) + 8;
    let present = bytes.len() as u64;
    // The size of what is there is worth more than that something is missing.
    let whole = present >= declared;
    let walked = walk(&bytes[12..], limits);
    match walked {
        Err(DecodeError::TooLarge(what)) => Err(DecodeError::TooLarge(what)),
        _ if !whole => Err(DecodeError::Truncated(format!("{present} of {declared} bytes"))),
        walked => walked,
    }
}

fn walk(bytes: &[u8], limits: &DecodeLimits) -> Result<(), DecodeError> {
    for (kind, body) in chunks(bytes) {
        check_size(kind, body, limits)?;
        if kind == b"ANMF" {
            // A frame of an animation holds chunks, and no further frames: no decoder reads those, and whoever
            // followed them would go as deep as a hostile file says.
            for (kind, body) in chunks(body.get(16..).unwrap_or_default()) {
                check_size(kind, body, limits)?;
            }
        }
    }
    Ok(())
}

/// Kind and body of one chunk after the other; the last body may be cut.
fn chunks(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let kind = rest.get(..4)?;
        let length = word(rest, 4)? as usize;
        let body = &rest[8..rest.len().min(length.saturating_add(8))];
        // Chunks are padded to an even length.
        rest = rest.get(8usize.saturating_add(length).saturating_add(length & 1)..).unwrap_or_default();
        Some((kind, body))
    })
}

fn check_size(kind: &[u8], body: &[u8], limits: &DecodeLimits) -> Result<(), DecodeError> {
    size(kind, body).map_or(Ok(()), |(width, height)| limits.check_size(width, height))
}

/// Width and height in the header of a chunk that has them.
fn size(kind: &[u8], body: &[u8]) -> Option<(u32, u32)> {
    let three =
        |at: usize| Some(u32::from_le_bytes([*body.get(at)?, *body.get(at + 1)?, *body.get(at + 2)?, 0]));
    match kind {
        b"VP8X" => Some((three(4)? + 1, three(7)? + 1)),
        b"ANMF" => Some((three(6)? + 1, three(9)? + 1)),
        // RFC 6386, 9.1: three bytes of tag, three of start code, two sides of 14 bits.
        b"VP8 " => {
            let sides = word(body, 6)?;
            Some((sides & 0x3fff, sides >> 16 & 0x3fff))
        }
        // RFC 9649, 3.4: a signature byte, two sides of 14 bits less one.
        b"VP8L" => {
            let sides = word(body, 1)?;
            Some(((sides & 0x3fff) + 1, (sides >> 14 & 0x3fff) + 1))
        }
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}
