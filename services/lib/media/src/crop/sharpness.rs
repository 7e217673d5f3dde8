//! How blurred a crop is.

use forensics::CROP_SIDE;
use forensics::frame::CROP_BYTES;

/// Variance of the Laplacian (4 neighbours, without the outermost pixels) of the crop's luminance (BT.601, 0
/// to 255); low is blurred (Pech-Pacheco et al., ICPR 2000). 0 for anything but u8 RGB `[256, 256, 3]`.
pub fn sharpness(crop: &[u8]) -> f32 {
    if crop.len() != CROP_BYTES {
        return 0.0;
    }
    let mut rows = crop.chunks_exact(3 * CROP_SIDE).map(luminance);
    let (Some(mut above), Some(mut here)) = (rows.next(), rows.next()) else { return 0.0 };
    let (mut sum, mut squares) = (0i64, 0i64);
    for below in rows {
        let mut laplacian = [0i16; CROP_SIDE - 2];
        for (x, value) in laplacian.iter_mut().enumerate() {
            *value = above[x + 1] + below[x + 1] + here[x] + here[x + 2] - 4 * here[x + 1];
        }
        // 254 values of at most 1,020² fit into 32 bits.
        sum += i64::from(laplacian.iter().map(|&value| i32::from(value)).sum::<i32>());
        squares += i64::from(laplacian.iter().map(|&value| i32::from(value) * i32::from(value)).sum::<i32>());
        (above, here) = (here, below);
    }
    let count = ((CROP_SIDE - 2) * (CROP_SIDE - 2)) as f64;
    let mean = sum as f64 / count;
    (squares as f64 / count - mean * mean) as f32
}

/// BT.601 luminance of a row, weights in 1/256. Four pixels are read as three words: byte by byte the row
/// costs twice as much (measured 2026-11-24), and every crop of the fleet comes through here.
fn luminance(row: &[u8]) -> [i16; CROP_SIDE] {
    let of = |red: u32, green: u32, blue: u32| ((red * 77 + green * 150 + blue * 29 + 128) >> 8) as i16;
    let byte = |word: u32, index: u32| (word >> (8 * index)) & 255;
    let mut grey = [0i16; CROP_SIDE];
    let (quads, targets) = (row.as_chunks::<12>().0, grey.as_chunks_mut::<4>().0);
    for (target, quad) in targets.iter_mut().zip(quads) {
        let word = |at: usize| u32::from_le_bytes([quad[at], quad[at + 1], quad[at + 2], quad[at + 3]]);
        let (a, b, c) = (word(0), word(4), word(8));
        *target = [
            of(byte(a, 0), byte(a, 1), byte(a, 2)),
            of(byte(a, 3), byte(b, 0), byte(b, 1)),
            of(byte(b, 2), byte(b, 3), byte(c, 0)),
            of(byte(c, 1), byte(c, 2), byte(c, 3)),
        ];
    }
    grey
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crop(value: impl Fn(usize, usize) -> u8) -> Vec<u8> {
        (0..CROP_SIDE * CROP_SIDE).flat_map(|at| [value(at % CROP_SIDE, at / CROP_SIDE); 3]).collect()
    }

    #[test]
    fn flat_is_zero_and_the_sharpest_is_the_chessboard() {
        assert_eq!(sharpness(&crop(|_, _| 200)), 0.0);
        assert_eq!(sharpness(&crop(|x, _| x as u8)), 0.0, "a ramp has no second derivative");
        // Every value is ±4 × 255 with mean 0.
        assert_eq!(sharpness(&crop(|x, y| if (x + y) % 2 == 0 { 0 } else { 255 })), 1_020.0 * 1_020.0);
        assert_eq!(sharpness(&[1, 2, 3]), 0.0);
    }

    #[test]
    fn colours_weigh_what_the_eye_gives_them() {
        for (rgb, expected) in [([255, 0, 0], 77), ([0, 255, 0], 149), ([0, 0, 255], 29), ([255; 3], 255)] {
            assert_eq!(luminance(&rgb.repeat(CROP_SIDE)), [expected; CROP_SIDE]);
        }
    }

    #[test]
    fn blur_lowers_it() {
        let noise = |x: usize, y: usize| ((x * 7 + y * 13 + x * y) % 256) as u32;
        let sharp = crop(|x, y| noise(x, y) as u8);
        let blurred = crop(|x, y| {
            let sum: u32 = (0..9).map(|k| noise(x + k % 3, y + k / 3)).sum();
            (sum / 9) as u8
        });
        assert!(sharpness(&blurred) < sharpness(&sharp) / 4.0);
    }
}
