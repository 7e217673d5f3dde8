//! Faces to the network's input: u8 RGB `[256, 256, 3]`, by the rule that the model was trained with.

mod align;
mod bounding;
mod sharpness;

pub use align::Wide;
pub use sharpness::sharpness;

use forensics::{CropMode, DetectedFace, FaceCrop, Frame, Point};

/// Cuts one face out of a frame.
///
/// `Aligned`: five landmarks onto the template by a similarity transform, bilinear, black border. Landmarks
/// that span no area (all on one point, or not finite) or a face that the transform would blow up or shrink
/// beyond reason fall back to `Box`.
/// `Box`: the box made square and enlarged 1.3×, shifted and clipped at the frame's edges, resized. A box
/// that is not finite or lies outside falls back to the frame's central square.
/// `None`: the whole frame resized; the face's position is kept in the crop all the same.
pub fn crop_face(frame: &Frame, face: &DetectedFace, mode: CropMode) -> FaceCrop {
    let pixels = match mode {
        CropMode::Aligned => {
            let aligned = align::crop(frame, &face.landmarks, 0).map(|wide| wide.pixels);
            aligned.unwrap_or_else(|| bounding::crop(frame, &face.bounds))
        }
        CropMode::Box => bounding::crop(frame, &face.bounds),
        CropMode::None => bounding::resize(frame, bounding::Square::whole(frame)),
    };
    FaceCrop { pixels, face: Some(*face) }
}

/// A frame that already is a crop: resized to 256×256 whatever its aspect, or taken as it is.
pub fn crop_whole(frame: &Frame) -> FaceCrop {
    FaceCrop { pixels: bounding::resize(frame, bounding::Square::whole(frame)), face: None }
}

/// The aligned crop with `border` pixels of its surroundings on each side, for training: its middle is what
/// [`crop_face`] gives. `None` where the landmarks give no sensible transform.
pub fn crop_wide(frame: &Frame, landmarks: &[Point; 5], border: usize) -> Option<Wide> {
    align::crop(frame, landmarks, border)
}
