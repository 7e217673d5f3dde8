//! Pictures: whole frames, face crops, and batches of crops.

use crate::face::DetectedFace;

/// The network's input side in pixels; its `Linear(256, 256)` over 16×16 positions fixes the resolution.
pub const CROP_SIDE: usize = 256;

/// Bytes of one crop.
pub const CROP_BYTES: usize = CROP_SIDE * CROP_SIDE * 3;

/// A decoded picture: u8 RGB, row-major `[height, width, 3]`, no padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Frame {
    /// A frame over its pixels; `None` unless `rgb` holds exactly `width × height × 3` bytes and is not empty.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Option<Self> {
        let bytes = (width as usize).checked_mul(height as usize)?.checked_mul(3)?;
        (bytes > 0 && bytes == rgb.len()).then_some(Self { width, height, rgb })
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The pixels, `[height, width, 3]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The pixels, owned.
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }

    /// The pixel at column `x`, row `y`; both must lie inside.
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let at = (y as usize * self.width as usize + x as usize) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({}×{})", self.width, self.height)
    }
}

/// One face, cut out: u8 RGB `[256, 256, 3]`, and where it was found.
#[derive(Clone, PartialEq)]
pub struct FaceCrop {
    /// [`CROP_BYTES`] bytes, `[256, 256, 3]`.
    pub pixels: Box<[u8]>,
    /// The face in its frame; `None` where the picture came as a crop.
    pub face: Option<DetectedFace>,
}

impl std::fmt::Debug for FaceCrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FaceCrop({:?})", self.face.as_ref().map(|face| face.bounds))
    }
}

/// Crops of any media side by side: u8 RGB `[count, 256, 256, 3]`, ready for one upload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CropBatch {
    pixels: Vec<u8>,
}

impl CropBatch {
    /// An empty batch with room for `crops`.
    pub fn with_capacity(crops: usize) -> Self {
        Self { pixels: Vec::with_capacity(crops * CROP_BYTES) }
    }

    /// Appends one crop's pixels; false, and nothing appended, unless they are [`CROP_BYTES`] bytes.
    #[must_use]
    pub fn push(&mut self, pixels: &[u8]) -> bool {
        let fits = pixels.len() == CROP_BYTES;
        if fits {
            self.pixels.extend_from_slice(pixels);
        }
        fits
    }

    /// Crops in the batch.
    pub fn count(&self) -> usize {
        self.pixels.len() / CROP_BYTES
    }

    /// True without any crop.
    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// The pixels, `[count, 256, 256, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The crop at `index`.
    pub fn crop(&self, index: usize) -> &[u8] {
        &self.pixels[index * CROP_BYTES..(index + 1) * CROP_BYTES]
    }

    /// The crops from `start` on, at most `count`, as a batch of their own.
    pub fn slice(&self, start: usize, count: usize) -> Self {
        let end = (start + count).min(self.count());
        Self { pixels: self.pixels[start * CROP_BYTES..end * CROP_BYTES].to_vec() }
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.pixels.clear();
    }
}
