//! What a JPEG says about itself, read without decoding: size, scans, orientation, and whether it has an end.
//!
//! The decoder is asked only once all of this is known. It fills what is missing from a cut file with grey;
//! that the file is whole is found out here, by its end marker.

use memchr::memchr;

use super::orientation::Orientation;
use super::{DecodeError, DecodeLimits};

/// The markers that matter (ITU-T T.81, table B.1).
mod marker {
    pub(super) const SOI: u8 = 0xd8;
    pub(super) const EOI: u8 = 0xd9;
    pub(super) const SOS: u8 = 0xda;
    pub(super) const APP1: u8 = 0xe1;
    pub(super) const TEM: u8 = 0x01;
}

/// A whole JPEG within the limits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    /// Where the end marker starts.
    pub(super) end: usize,
    /// Whether all pixels come in one scan.
    pub(super) one_scan: bool,
}

/// What is known so far.
#[derive(Default)]
struct Seen {
    frame: Option<FrameHeader>,
    scans: u32,
    /// Components of the first scan.
    first_scan: usize,
    orientation: Orientation,
}

struct FrameHeader {
    width: u32,
    height: u32,
    progressive: bool,
    /// Horizontal × vertical sampling factor of each component.
    samples: Vec<u64>,
}

impl Layout {
    /// Walks the file's segments to its end marker.
    pub(super) fn read(bytes: &[u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let mut seen = Seen::default();
        // The two bytes of SOI were the magic.
        let mut at = 2;
        loop {
            let (marker, next) = next_marker(bytes, at)?;
            match marker {
                marker::EOI => return seen.finish(limits, next - 2),
                marker::SOI | marker::TEM | 0xd0..=0xd7 => at = next,
                _ => {
                    let (segment, end) = segment(bytes, next)?;
                    seen.take(marker, segment, limits)?;
                    at = if marker == marker::SOS { entropy_end(bytes, end)? } else { end };
                }
            }
        }
    }
}

impl Seen {
    fn take(&mut self, marker: u8, segment: &[u8], limits: &DecodeLimits) -> Result<(), DecodeError> {
        match marker {
            0xc0..=0xc2 => {
                let frame = FrameHeader::read(marker == 0xc2, segment)?;
                limits.check_size(frame.width, frame.height)?;
                if self.frame.replace(frame).is_some() {
                    return Err(DecodeError::Broken("two frame headers".to_owned()));
                }
            }
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                let kind = match marker {
                    0xc3 => "lossless",
                    0xc9..=0xcb => "arithmetic coding",
                    _ => "hierarchical",
                };
                return Err(DecodeError::Unsupported(format!("JPEG variant: {kind}")));
            }
            marker::SOS => {
                self.scans += 1;
                if self.scans == 1 {
                    self.first_scan = segment.first().copied().map_or(0, usize::from);
                }
                let frame = self.frame.as_ref();
                let frame = frame.ok_or_else(|| DecodeError::Broken("a scan before its frame".to_owned()))?;
                limits.check_scans(self.scans, u64::from(frame.width) * u64::from(frame.height))?;
            }
            marker::APP1 => {
                if let Some(tiff) = segment.strip_prefix(b"Exif\0\0")
                    && self.orientation == Orientation::default()
                {
                    self.orientation = Orientation::of_tiff(tiff);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self, limits: &DecodeLimits, end: usize) -> Result<Layout, DecodeError> {
        let frame = self.frame.filter(|_| self.scans > 0);
        let frame = frame.ok_or_else(|| DecodeError::Broken("a JPEG without a picture".to_owned()))?;
        if !frame.progressive && self.scans > 1 && self.first_scan == frame.samples.len() {
            // The decoder ends at the second scan, wherever the first one broke off.
            return Err(DecodeError::Broken("a scan after the only one".to_owned()));
        }
        let pixels = u64::from(frame.width) * u64::from(frame.height);
        // u8 RGB; and where all scans must be in before a pixel is known, 16 bits for each sample. An
        // orientation needs a second picture, but only after those are freed.
        let most = frame.samples.iter().max().copied().unwrap_or(1);
        let whole = frame.progressive || self.scans > 1;
        let coefficients = if whole { 2 * pixels * frame.samples.iter().sum::<u64>() / most } else { 0 };
        let turned = if self.orientation == Orientation::default() { 0 } else { 3 * pixels };
        limits.check_memory(3 * pixels + coefficients.max(turned))?;
        Ok(Layout {
            width: frame.width,
            height: frame.height,
            orientation: self.orientation,
            end,
            one_scan: !whole,
        })
    }
}

impl FrameHeader {
    /// T.81, B.2.2.
    fn read(progressive: bool, segment: &[u8]) -> Result<Self, DecodeError> {
        let broken = || DecodeError::Broken("frame header".to_owned());
        let &[precision, h0, h1, w0, w1, count, ref components @ ..] = segment else { return Err(broken()) };
        if precision != 8 {
            return Err(DecodeError::Unsupported(format!("JPEG variant: {precision} bits a sample")));
        }
        let components = components.get(..usize::from(count) * 3).ok_or_else(broken)?;
        let samples = components.chunks_exact(3).map(|c| u64::from(c[1] >> 4) * u64::from(c[1] & 15));
        let samples: Vec<u64> = samples.collect();
        if samples.is_empty() || samples.contains(&0) {
            return Err(broken());
        }
        let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
        Ok(Self { width: side(w0, w1), height: side(h0, h1), progressive, samples })
    }
}

/// The next marker at or after `at`, and where it ends. Bytes between segments are skipped, as decoders do.
fn next_marker(bytes: &[u8], mut at: usize) -> Result<(u8, usize), DecodeError> {
    loop {
        at += memchr(0xff, bytes.get(at..).unwrap_or_default()).ok_or_else(|| cut(bytes))? + 1;
        match bytes.get(at) {
            None => return Err(cut(bytes)),
            // Stuffing, or a fill byte before a marker.
            Some(0 | 0xff) => {}
            Some(&marker) => return Ok((marker, at + 1)),
        }
    }
}

/// The segment whose length stands at `at`, and where it ends.
fn segment(bytes: &[u8], at: usize) -> Result<(&[u8], usize), DecodeError> {
    let rest = bytes.get(at..).unwrap_or_default();
    let &[high, low, ..] = rest else { return Err(cut(bytes)) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length < 2 {
        return Err(DecodeError::Broken("a segment shorter than its own length".to_owned()));
    }
    let body = rest.get(2..length).ok_or_else(|| cut(bytes))?;
    Ok((body, at + length))
}

/// Where the entropy-coded data from `at` on ends: at a marker that is no restart.
fn entropy_end(bytes: &[u8], mut at: usize) -> Result<usize, DecodeError> {
    loop {
        let (marker, next) = next_marker(bytes, at)?;
        if !(0xd0..=0xd7).contains(&marker) {
            return Ok(next - 2);
        }
        at = next;
    }
}

fn cut(bytes: &[u8]) -> DecodeError {
    DecodeError::Truncated(format!("no end marker in {} bytes", bytes.len()))
}
