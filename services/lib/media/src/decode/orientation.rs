//! How a picture must be turned to stand upright.

use forensics::Frame;

/// EXIF's tag 0x0112 (CIPA DC-008, 4.6.4): 1 is upright, 3 upside down, 6 and 8 on a side, the even ones
/// up to 4 and the odd ones from 5 are mirrored besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Orientation(u8);

impl Default for Orientation {
    fn default() -> Self {
        Self(1)
    }
}

impl Orientation {
    /// The orientation of that number; upright for numbers that do not exist.
    pub(super) fn new(number: u8) -> Self {
        if (1..=8).contains(&number) { Self(number) } else { Self::default() }
    }

    /// The tag in the first directory of EXIF's TIFF structure; upright where it cannot be found.
    pub(super) fn of_tiff(tiff: &[u8]) -> Self {
        Self::find(tiff).unwrap_or_default()
    }

    fn find(tiff: &[u8]) -> Option<Self> {
        let big = match tiff.get(..4)? {
            b"MM\0*" => true,
            b"II*\0" => false,
            _ => return None,
        };
        let short = |at: usize| {
            let bytes = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
            Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
        };
        let (first, second) = (u32::from(short(4)?), u32::from(short(6)?));
        let directory = (if big { first << 16 | second } else { second << 16 | first }) as usize;
        for entry in 0..usize::from(short(directory)?) {
            let at = directory.checked_add(2 + 12 * entry)?;
            // Tag 0x0112 of type SHORT; its one value stands in the entry itself.
            if short(at)? == 0x0112 && short(at + 2)? == 3 {
                return u8::try_from(short(at + 8)?).ok().map(Self::new);
            }
        }
        None
    }

    /// The picture upright.
    pub(super) fn apply(self, frame: Frame) -> Frame {
        if self == Self::default() {
            return frame;
        }
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        let on_its_side = self.0 >= 5;
        let (new_width, new_height) = if on_its_side { (height, width) } else { (width, height) };
        let source = frame.rgb();
        let mut upright = Vec::with_capacity(source.len());
        for y in 0..new_height {
            for x in 0..new_width {
                let (column, row) = match self.0 {
                    2 => (width - 1 - x, y),
                    3 => (width - 1 - x, height - 1 - y),
                    4 => (x, height - 1 - y),
                    5 => (y, x),
                    6 => (y, height - 1 - x),
                    7 => (width - 1 - y, height - 1 - x),
                    _ => (width - 1 - y, x),
                };
                let at = (row * width + column) * 3;
                upright.extend_from_slice(&source[at..at + 3]);
            }
        }
        Frame::new(new_width as u32, new_height as u32, upright).expect("as many pixels as before")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2×3: `ab` / `cd` / `ef`.
    fn letters() -> Frame {
        Frame::new(2, 3, b"abcdef".iter().flat_map(|&letter| [letter; 3]).collect()).unwrap()
    }

    fn text(frame: &Frame) -> String {
        frame
            .rgb()
            .chunks(3 * frame.width() as usize)
            .map(|row| row.chunks(3).map(|pixel| char::from(pixel[0])).collect::<String>())
            .collect::<Vec<_>>()
            .join("/")
    }

    #[test]
    fn every_orientation_is_undone() {
        // EXIF's own words: where row 0 and column 0 of the file lie in the upright picture.
        for (number, expected) in [
            (1, "ab/cd/ef"),
            (2, "ba/dc/fe"),
            (3, "fe/dc/ba"),
            (4, "ef/cd/ab"),
            (5, "ace/bdf"),
            (6, "eca/fdb"),
            (7, "fdb/eca"),
            (8, "bdf/ace"),
        ] {
            assert_eq!(text(&Orientation::new(number).apply(letters())), expected, "orientation {number}");
        }
        assert_eq!(Orientation::new(0), Orientation::default());
        assert_eq!(Orientation::new(9), Orientation::default());
    }

    #[test]
    fn the_tag_is_found_in_both_byte_orders() {
        let little =
            b"II*\0\x08\0\0\0\x02\0\x00\x01\x03\0\x01\0\0\0\x05\0\0\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
        assert_eq!(Orientation::of_tiff(little), Orientation(6));
        assert_eq!(Orientation::of_tiff(big), Orientation(8));
        assert_eq!(Orientation::of_tiff(&big[..16]), Orientation(1), "cut off");
    }

    proptest! {
        #[test]
        fn any_tiff_is_survived(tail in proptest::collection::vec(any::<u8>(), 0..64), big in any::<bool>()) {
            let mut tiff = if big { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
            tiff.extend(tail);
            prop_assert!((1..=8).contains(&Orientation::of_tiff(&tiff).0));
        }
    }
}
