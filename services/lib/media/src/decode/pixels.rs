//! Any of the `image` crate's pixels to u8 RGB.

use forensics::Frame;
use image::{ColorType, ImageDecoder, ImageError};

use super::orientation::Orientation;
use super::{DecodeError, DecodeLimits};

/// Reads the one picture of `decoder` upright and as u8 RGB. `working` are the bytes a pixel that the decoder
/// itself takes besides its output.
pub(super) fn read(
    mut decoder: impl ImageDecoder,
    working: u64,
    limits: &DecodeLimits,
) -> Result<Frame, DecodeError> {
    let (width, height) = decoder.dimensions();
    limits.check_size(width, height)?;
    let color = decoder.color_type();
    // Its output, ours, and what it needs meanwhile.
    let a_pixel = u64::from(color.bytes_per_pixel()) + 3 + working;
    limits.check_memory(u64::from(width) * u64::from(height) * a_pixel)?;
    let orientation = decoder.orientation().map_or(1, image::metadata::Orientation::to_exif);
    let size =
        usize::try_from(decoder.total_bytes()).map_err(|_| DecodeError::TooLarge("memory".to_owned()))?;
    let mut raw = vec![0; size];
    decoder.read_image(&mut raw).map_err(of_image)?;
    let rgb = to_rgb(raw, color)?;
    let frame = Frame::new(width, height, rgb);
    let frame = frame.ok_or_else(|| DecodeError::Broken("pixels are missing".to_owned()))?;
    Ok(Orientation::new(orientation).apply(frame))
}

/// What the `image` crate's error means.
pub(super) fn of_image(error: ImageError) -> DecodeError {
    match error {
        ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            DecodeError::Truncated(io.to_string())
        }
        ImageError::Limits(limit) => DecodeError::TooLarge(limit.to_string()),
        ImageError::Unsupported(what) => DecodeError::Unsupported(what.to_string()),
        other => DecodeError::Broken(other.to_string()),
    }
}

fn to_rgb(raw: Vec<u8>, color: ColorType) -> Result<Vec<u8>, DecodeError> {
    let narrow = |raw: &[u8]| -> Vec<u8> {
        // To the nearest: 65,535 = 257 × 255.
        let byte = |pair: &[u8]| ((u32::from(u16::from_ne_bytes([pair[0], pair[1]])) + 128) / 257) as u8;
        raw.chunks_exact(2).map(byte).collect()
    };
    Ok(match color {
        ColorType::Rgb8 => raw,
        ColorType::L8 => grey(&raw),
        ColorType::La8 => grey_on_white(&raw),
        ColorType::Rgba8 => on_white(&raw),
        ColorType::L16 => grey(&narrow(&raw)),
        ColorType::La16 => grey_on_white(&narrow(&raw)),
        ColorType::Rgb16 => narrow(&raw),
        ColorType::Rgba16 => on_white(&narrow(&raw)),
        other => return Err(DecodeError::Unsupported(format!("colour type {other:?}"))),
    })
}

fn grey(raw: &[u8]) -> Vec<u8> {
    raw.iter().flat_map(|&value| [value; 3]).collect()
}

fn grey_on_white(raw: &[u8]) -> Vec<u8> {
    raw.chunks_exact(2).flat_map(|pixel| [blend(pixel[0], pixel[1]); 3]).collect()
}

fn on_white(raw: &[u8]) -> Vec<u8> {
    let over = |pixel: &[u8]| [pixel[0], pixel[1], pixel[2]].map(|value| blend(value, pixel[3]));
    raw.chunks_exact(4).flat_map(over).collect()
}

/// A colour of this opacity on white: what nobody sees on a page must not be judged.
fn blend(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}
