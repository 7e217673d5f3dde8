//! How blurred a crop is.

use forensics::CROP_SIDE;
use forensics::frame::CROP_BYTES;

/// Variance of the Laplacian (4 neighbours, without the outermost pixels) of the crop's luminance (BT.601, 0
/// to 255); low is blurred (Pech-Pacheco et al., ICPR 2000). 0 for anything but u8 RGB `[256, 256, 3]`.
pub fn sharpness(crop: &[u8]) -> f32 {
    if crop.len() != CROP_BYTES {
        return 0.0;
    }
    let luminance = |pixel: &[u8]| {
        // BT.601 weights in 1/256.
        (i32::from(pixel[0]) * 77 + i32::from(pixel[1]) * 150 + i32::from(pixel[2]) * 29 + 128) >> 8
    };
    let grey: Vec<i32> = crop.chunks_exact(3).map(luminance).collect();
    let (mut sum, mut squares) = (0i64, 0i64);
    for row in 1..CROP_SIDE - 1 {
        let line = |row: usize| &grey[row * CROP_SIDE..(row + 1) * CROP_SIDE];
        let (above, here, below) = (line(row - 1), line(row), line(row + 1));
        // 254 values of at most 1,020² fit into 32 bits.
        let (mut line_sum, mut line_squares) = (0i32, 0i32);
        for x in 1..CROP_SIDE - 1 {
            let value = above[x] + below[x] + here[x - 1] + here[x + 1] - 4 * here[x];
            line_sum += value;
            line_squares += value * value;
        }
        sum += i64::from(line_sum);
        squares += i64::from(line_squares);
    }
    let count = ((CROP_SIDE - 2) * (CROP_SIDE - 2)) as f64;
    let mean = sum as f64 / count;
    (squares as f64 / count - mean * mean) as f32
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
