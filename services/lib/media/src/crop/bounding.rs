//! `crop: box`, as FaceForensics++ cuts faces (`get_boundingbox` of its detection script), and resizing.

use std::cell::RefCell;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use forensics::frame::CROP_BYTES;
use forensics::{BoundingBox, CROP_SIDE, Frame};

/// The square is larger than the longer side of the box by this factor.
const SCALE: f32 = 1.3;

/// A part of a frame, in whole pixels, inside the frame and never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Square {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl Square {
    /// All of it, square or not.
    pub(super) fn whole(frame: &Frame) -> Self {
        Self { left: 0, top: 0, width: frame.width(), height: frame.height() }
    }

    /// The largest square in the middle.
    fn central(frame: &Frame) -> Self {
        let side = frame.width().min(frame.height());
        let (left, top) = ((frame.width() - side) / 2, (frame.height() - side) / 2);
        Self { left, top, width: side, height: side }
    }

    /// The box made square about its middle and enlarged; moved to the right and down where it starts
    /// outside, made smaller where it ends outside.
    pub(super) fn about(frame: &Frame, bounds: &BoundingBox) -> Self {
        let edges = [bounds.left, bounds.top, bounds.right, bounds.bottom];
        // Beyond 2^24 an f32 is no longer a whole pixel.
        if !edges.iter().all(|edge| edge.abs() < 16_777_216.0) {
            return Self::central(frame);
        }
        let [left, top, right, bottom] = edges.map(|edge| edge.round() as i64);
        let side = ((right - left).max(bottom - top) as f32 * SCALE) as i64;
        let start = |from: i64, to: i64| ((from + to).div_euclid(2) - side / 2).max(0);
        let (left, top) = (start(left, right), start(top, bottom));
        let side = side.min(i64::from(frame.width()) - left).min(i64::from(frame.height()) - top);
        match (u32::try_from(left), u32::try_from(top), u32::try_from(side)) {
            (Ok(left), Ok(top), Ok(side)) if side > 0 => Self { left, top, width: side, height: side },
            _ => Self::central(frame),
        }
    }
}

/// The enlarged square about a box, 256×256.
pub(super) fn crop(frame: &Frame, bounds: &BoundingBox) -> Box<[u8]> {
    resize(frame, Square::about(frame, bounds))
}

thread_local! {
    /// Keeps the resizer's working memory from one crop to the next.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// A part of a frame at 256×256: bilinear with the filter widened where it shrinks, as Pillow and torchvision do.
pub(super) fn resize(frame: &Frame, part: Square) -> Box<[u8]> {
    let mut pixels = vec![0; CROP_BYTES];
    let source: TypedImageRef<'_, U8x3> =
        TypedImageRef::from_buffer(frame.width(), frame.height(), frame.rgb())
            .expect("a frame holds width × height × 3 bytes");
    let side = CROP_SIDE as u32;
    let mut target: TypedImage<'_, U8x3> =
        TypedImage::from_buffer(side, side, &mut pixels).expect("a crop holds 256 × 256 × 3 bytes");
    let [left, top, width, height] = [part.left, part.top, part.width, part.height].map(f64::from);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .crop(left, top, width, height)
        .use_alpha(false);
    RESIZER.with_borrow_mut(|resizer| {
        resizer
            .resize_typed::<U8x3>(&source, &mut target, &options)
            .expect("the part lies inside of the frame and is not empty")
    });
    pixels.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(width: u32, height: u32) -> Frame {
        Frame::new(width, height, vec![7; (width * height * 3) as usize]).unwrap()
    }

    fn bounds(left: f32, top: f32, right: f32, bottom: f32) -> BoundingBox {
        BoundingBox { left, top, right, bottom }
    }

    #[test]
    fn squares_are_those_of_the_published_code() {
        // Numbers from running get_boundingbox(face, 640, 480) by hand.
        let frame = frame(640, 480);
        for (face, expected) in [
            (bounds(100.0, 100.0, 200.0, 200.0), (85, 85, 130)),
            (bounds(100.0, 100.0, 200.0, 180.0), (85, 75, 130)),
            (bounds(10.0, 10.0, 110.0, 110.0), (0, 0, 130)),
            (bounds(590.0, 400.0, 640.0, 470.0), (570, 390, 70)),
        ] {
            let (left, top, side) = expected;
            assert_eq!(Square::about(&frame, &face), Square { left, top, width: side, height: side });
        }
    }

    #[test]
    fn a_box_that_makes_no_sense_falls_back_to_the_middle() {
        let frame = frame(640, 480);
        let middle = Square { left: 80, top: 0, width: 480, height: 480 };
        for face in [
            bounds(f32::NAN, 0.0, 10.0, 10.0),
            bounds(0.0, 0.0, f32::INFINITY, 10.0),
            bounds(50.0, 50.0, 50.0, 50.0),
            bounds(10.0, 10.0, 5.0, 5.0),
            bounds(5_000.0, 5_000.0, 5_100.0, 5_100.0),
        ] {
            assert_eq!(Square::about(&frame, &face), middle, "{face:?}");
        }
    }

    #[test]
    fn a_crop_of_its_size_is_taken_as_it_is() {
        let rgb: Vec<u8> = (0..CROP_BYTES).map(|index| (index * 31 % 251) as u8).collect();
        let frame = Frame::new(256, 256, rgb.clone()).unwrap();
        assert_eq!(*resize(&frame, Square::whole(&frame)), rgb[..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_box_gives_a_crop(
            width in 1u32..80, height in 1u32..80,
            left in -200f32..200.0, top in -200f32..200.0, w in -50f32..400.0, h in -50f32..400.0,
        ) {
            let frame = frame(width, height);
            let square = Square::about(&frame, &bounds(left, top, left + w, top + h));
            prop_assert!(square.width > 0 && square.left + square.width <= width);
            prop_assert!(square.height > 0 && square.top + square.height <= height);
            prop_assert!(crop(&frame, &bounds(left, top, left + w, top + h)).iter().all(|&value| value == 7));
        }
    }
}
