//! JPEG, by zune-jpeg in its strict mode.

use std::borrow::Cow;

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
    let bytes = layout.unended(bytes);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&bytes[..]), options);
    decoder.decode_headers().map_err(broken)?;
    // Both have read the same header; a file that makes them differ is a trap.
    let same = decoder.dimensions() == Some((layout.width as usize, layout.height as usize));
    let size = decoder.output_buffer_size().filter(|_| same);
    let size =
        size.ok_or_else(|| DecodeError::Broken("JPEG: contradicts itself about its size".to_owned()))?;
    // Cleared, 5 % of a 720p picture: memory of earlier pictures must not show through, whatever the file.
    let mut rgb = vec![0; size];
    decoder.decode_into(&mut rgb).map_err(|error| match error {
        zune_jpeg::errors::DecodeErrors::ExhaustedData => {
            DecodeError::Broken("JPEG: its scan ends before the picture is whole".to_owned())
        }
        other => broken(other),
    })?;
    drop(decoder);
    let frame = Frame::new(layout.width, layout.height, rgb);
    let frame = frame.ok_or_else(|| DecodeError::Broken("JPEG: not three channels".to_owned()))?;
    Ok(layout.orientation.apply(frame))
}

impl Layout {
    /// The file with zeros in place of its end marker. At the marker the decoder would go on as if zeros came
    /// for ever, and paint what is missing grey; at the end of the bytes it fails. It reads at most four bytes
    /// ahead, so a whole picture never gets there. Pictures of several scans need their markers: of those a
    /// scan that ends too early goes unnoticed, a file that does not.
    fn unended<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.one_scan {
            return Cow::Borrowed(bytes);
        }
        let mut unended = Vec::with_capacity(self.end + 8);
        unended.extend_from_slice(&bytes[..self.end]);
        unended.extend([0; 8]);
        Cow::Owned(unended)
    }
}
