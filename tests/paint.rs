//! Pictures for the scripted engines: faces are painted as magenta (authentic) to white (forged) squares.

use std::io::Cursor;

/// A black picture with faces of 64×64 px on a grid of 96 px; `green` is what the scripted score follows.
pub fn faces(count: usize, green: u8) -> Vec<u8> {
    let columns = 16.min(count.max(1));
    let rows = count.div_ceil(columns).max(1);
    let (width, height) = (columns as u32 * 96 + 32, rows as u32 * 96 + 32);
    let mut picture = image::RgbImage::new(width, height);
    for face in 0..count {
        let (left, top) = ((face % columns) as u32 * 96 + 32, (face / columns) as u32 * 96 + 32);
        for y in top..top + 64 {
            for x in left..left + 64 {
                picture.put_pixel(x, y, image::Rgb([255, green, 255]));
            }
        }
    }
    png(&picture)
}

/// A crop of 256×256 px in one colour, for `faces: cropped`; `seed` makes its bytes unique.
pub fn crop(green: u8, seed: u32) -> Vec<u8> {
    let mut picture = image::RgbImage::from_pixel(256, 256, image::Rgb([255, green, 255]));
    for (index, byte) in seed.to_be_bytes().into_iter().enumerate() {
        picture.put_pixel(index as u32, 0, image::Rgb([255, byte, 255]));
    }
    png(&picture)
}

/// The picture as PNG.
pub fn png(picture: &image::RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).expect("encoding into memory succeeds");
    bytes.into_inner()
}
