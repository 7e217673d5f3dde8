//! JPEG, by zune-jpeg in its strict mode.

use forensics::Frame;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::jpeg_layout::Layout;
use super::{DecodeError, DecodeLimits};

pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Frame, DecodeError> {
    let layout = Layout::read(bytes, limits)?;
    let side = limits.side_max as usize;
    let options = DecoderOptions::default()
        // Otherwise what cannot be decoded is painted grey and passed off as the picture.
        .set_strict_mode(true)
        .set_max_width(side)
        .set_max_height(side)
        .jpeg_set_max_scans(limits.scans_max as usize)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let broken = |error: zune_jpeg::errors::DecodeErrors| DecodeError::Broken(format!("JPEG: {error:?}"));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(broken)?;
    // Both have read the same header; a file that makes them differ is a trap.
    let same = decoder.dimensions() == Some((layout.width as usize, layout.height as usize));
    let size = decoder.output_buffer_size().filter(|_| same);
    let size = size.ok_or_else(|| DecodeError::Broken("JPEG: contradicts itself about its size".to_owned()))?;
    let mut rgb = vec![0; size];
    decoder.decode_into(&mut rgb).map_err(broken)?;
    drop(decoder);
    let frame = Frame::new(layout.width, layout.height, rgb);
    let frame = frame.ok_or_else(|| DecodeError::Broken("JPEG: not three channels".to_owned()))?;
    Ok(layout.orientation.apply(frame))
}
