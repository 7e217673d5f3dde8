//! JPEG pixels are libjpeg-turbo's, bit for bit: the face detector's published results were made from those, and some of
//! them hang on a single level.

use media::{DecodeLimits, decode};
use sha2::{Digest, Sha256};

/// SHA-256 of the pixels that Pillow 13 (libjpeg-turbo) gives, u8 RGB `[97, 133, 3]`; an odd size, for the edges.
const PICTURES: [(&str, &str); 4] = [
    ("420", "f84fa8c05bda21cd623936c708dfb5ad01beea929949a2947b04b0999447f392"),
    ("420-progressive", "f84fa8c05bda21cd623936c708dfb5ad01beea929949a2947b04b0999447f392"),
    ("422", "8d5c9e818483d57b248f6d7d79235ba2140caac52ef618a0bf52b8717f4d6dd3"),
    ("444", "a5e2ccbf8f116021ba064a4f39f9735d3fc8585fca7ff31c533023312279d389"),
];

#[test]
fn jpeg_pixels_are_those_of_libjpeg_turbo() {
    let limits = DecodeLimits {
        side_max: 8_192,
        pixels_max: 40_000_000,
        bytes_max: 32 << 20,
        memory_max: 256 << 20,
        scans_max: 64,
    };
    for (name, pixels) in PICTURES {
        let path = format!("{}/tests/fixtures/astronaut-{name}.jpg", env!("CARGO_MANIFEST_DIR"));
        let frame = decode(&std::fs::read(path).unwrap(), &limits).unwrap();
        assert_eq!((frame.width(), frame.height()), (133, 97), "{name}");
        assert_eq!(hex::encode(Sha256::digest(frame.rgb())), pixels, "{name}");
    }
}
