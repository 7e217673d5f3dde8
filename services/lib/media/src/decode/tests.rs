//! What goes in and what comes out, per format; and the corpus of files that want to do harm.

use std::time::Instant;

use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::*;

fn limits() -> DecodeLimits {
    DecodeLimits {
        side_max: 8_192,
        pixels_max: 40_000_000,
        bytes_max: 32 << 20,
        memory_max: 256 << 20,
        scans_max: 64,
    }
}

/// Soft shapes in all three channels, so that a lost row, a swapped channel or a grey half is seen.
fn shapes(width: usize, height: usize) -> Vec<u8> {
    let value = |x: usize, y: usize, channel: usize| {
        let wave =
            (x as f64 / (9.0 + channel as f64)).sin() + (y as f64 / (7.0 + 2.0 * channel as f64)).cos();
        (127.0 + 60.0 * wave) as u8
    };
    (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| value(x, y, c)))).collect()
}

fn jpeg_with(width: u16, height: u16, set: impl Fn(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 90);
    set(&mut encoder);
    let rgb = shapes(usize::from(width), usize::from(height));
    encoder.encode(&rgb, width, height, ColorType::Rgb).unwrap();
    bytes
}

fn png(width: u32, height: u32, color: ExtendedColorType, raw: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes).write_image(raw, width, height, color).unwrap();
    bytes
}

fn webp(width: u32, height: u32, color: ExtendedColorType, raw: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    WebPEncoder::new_lossless(&mut bytes).write_image(raw, width, height, color).unwrap();
    bytes
}

fn class(bytes: &[u8]) -> &'static str {
    match decode(bytes, &limits()) {
        Ok(_) => "ok",
        Err(DecodeError::TooLarge(_)) => "too large",
        Err(DecodeError::Truncated(_)) => "truncated",
        Err(DecodeError::Broken(_)) => "broken",
        Err(DecodeError::Unsupported(_)) => "unsupported",
        Err(DecodeError::Closed) => "closed",
    }
}

/// Mean absolute difference of all values.
fn difference(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

#[test]
fn jpegs_of_every_kind_come_out_as_they_went_in() {
    type Set = fn(&mut Encoder<&mut Vec<u8>>);
    let kinds: [(&str, Set); 6] = [
        ("4:4:4", |encoder| encoder.set_sampling_factor(SamplingFactor::R_4_4_4)),
        ("4:2:0", |encoder| encoder.set_sampling_factor(SamplingFactor::R_4_2_0)),
        ("4:2:2", |encoder| encoder.set_sampling_factor(SamplingFactor::R_4_2_2)),
        ("progressive", |encoder| encoder.set_progressive(true)),
        ("restart intervals", |encoder| encoder.set_restart_interval(3)),
        ("optimised tables", |encoder| encoder.set_optimized_huffman_tables(true)),
    ];
    for (kind, set) in kinds {
        // Sides that are no multiple of a block.
        let frame = decode(&jpeg_with(203, 117, set), &limits()).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!((frame.width(), frame.height()), (203, 117));
        let off = difference(frame.rgb(), &shapes(203, 117));
        assert!(off < 3.0, "{kind}: off by {off}");
    }
}

#[test]
fn grey_and_cmyk_jpegs_become_rgb() {
    let grey: Vec<u8> = shapes(64, 48).chunks(3).map(|pixel| pixel[0]).collect();
    let mut bytes = Vec::new();
    Encoder::new(&mut bytes, 95).encode(&grey, 64, 48, ColorType::Luma).unwrap();
    let frame = decode(&bytes, &limits()).unwrap();
    let expected: Vec<u8> = grey.iter().flat_map(|&value| [value; 3]).collect();
    assert!(difference(frame.rgb(), &expected) < 2.0);

    // Plain inks without black: what is left of each colour is 255 − ink.
    let rgb = shapes(64, 48);
    let cmyk: Vec<u8> = rgb.chunks(3).flat_map(|p| [255 - p[0], 255 - p[1], 255 - p[2], 0]).collect();
    for color in [ColorType::Cmyk, ColorType::CmykAsYcck] {
        let mut bytes = Vec::new();
        Encoder::new(&mut bytes, 95).encode(&cmyk, 64, 48, color).unwrap();
        let frame = decode(&bytes, &limits()).unwrap();
        let off = difference(frame.rgb(), &rgb);
        assert!(off < 3.0, "{color:?}: off by {off}");
    }
}

#[test]
fn a_jpeg_that_lies_on_its_side_is_put_upright() {
    let tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let exif: Vec<u8> = b"Exif\0\0".iter().chain(tiff).copied().collect();
    let bytes = jpeg_with(40, 24, |encoder| encoder.add_app_segment(1, exif.clone()).unwrap());
    let frame = decode(&bytes, &limits()).unwrap();
    assert_eq!((frame.width(), frame.height()), (24, 40));
    // Orientation 6: the file's left column is the top row, read from below.
    let lying = shapes(40, 24);
    let at = |x: usize, y: usize| &lying[(y * 40 + x) * 3..][..3];
    let corner: Vec<u8> = frame.pixel(0, 0).to_vec();
    assert!(difference(&corner, at(0, 23)) < 12.0, "{corner:?} against {:?}", at(0, 23));
}

#[test]
fn pngs_of_every_colour_become_rgb() {
    let rgb = shapes(33, 21);
    let expect = |bytes: Vec<u8>, expected: &[u8], what: &str| {
        let frame = decode(&bytes, &limits()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(frame.rgb(), expected, "{what}");
    };
    expect(png(33, 21, ExtendedColorType::Rgb8, &rgb), &rgb, "rgb 8");
    let wide: Vec<u8> = rgb.iter().flat_map(|&value| (u16::from(value) * 257).to_ne_bytes()).collect();
    expect(png(33, 21, ExtendedColorType::Rgb16, &wide), &rgb, "rgb 16");
    let grey: Vec<u8> = rgb.chunks(3).map(|pixel| pixel[0]).collect();
    let grey_rgb: Vec<u8> = grey.iter().flat_map(|&value| [value; 3]).collect();
    expect(png(33, 21, ExtendedColorType::L8, &grey), &grey_rgb, "grey 8");
    let wide: Vec<u8> = grey.iter().flat_map(|&value| (u16::from(value) * 257).to_ne_bytes()).collect();
    expect(png(33, 21, ExtendedColorType::L16, &wide), &grey_rgb, "grey 16");
    // Opaque, half and not at all: on white.
    let pixels = [[10, 20, 30, 255], [10, 20, 30, 128], [10, 20, 30, 0]].concat();
    let white = [[10, 20, 30], [132, 137, 142], [255, 255, 255]].concat();
    expect(png(3, 1, ExtendedColorType::Rgba8, &pixels), &white, "rgba 8");
    expect(webp(3, 1, ExtendedColorType::Rgba8, &pixels), &white, "webp rgba");
    let pixels = [100, 255, 100, 0];
    expect(png(2, 1, ExtendedColorType::La8, &pixels), &[100, 100, 100, 255, 255, 255], "grey with alpha");
    expect(webp(33, 21, ExtendedColorType::Rgb8, &rgb), &rgb, "webp rgb");
}

#[test]
fn a_file_cut_anywhere_is_truncated_and_never_half_a_picture() {
    let rgb = shapes(160, 120);
    let whole = [
        ("baseline", jpeg_with(160, 120, |_| {})),
        ("4:2:0", jpeg_with(160, 120, |encoder| encoder.set_sampling_factor(SamplingFactor::R_4_2_0))),
        ("progressive", jpeg_with(160, 120, |encoder| encoder.set_progressive(true))),
        ("restarts", jpeg_with(160, 120, |encoder| encoder.set_restart_interval(2))),
        ("png", png(160, 120, ExtendedColorType::Rgb8, &rgb)),
        ("webp", webp(160, 120, ExtendedColorType::Rgb8, &rgb)),
    ];
    for (name, bytes) in &whole {
        assert_eq!(class(bytes), "ok", "{name}");
        let sixteenths = (0..16).map(|part| bytes.len() * part / 16);
        for length in sixteenths.chain([1, 2, 3, 5, 9, bytes.len() - 1]) {
            assert_eq!(class(&bytes[..length]), "truncated", "{name}: {length} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn a_picture_with_a_hole_in_it_is_broken() {
    // The middle is missing, the end marker is there.
    for sampling in [SamplingFactor::R_4_4_4, SamplingFactor::R_4_2_0] {
        let bytes = jpeg_with(160, 120, |encoder| encoder.set_sampling_factor(sampling));
        for (from, to) in [(4, 12), (6, 10), (8, 15), (10, 11)] {
            let hole = [&bytes[..bytes.len() * from / 16], &bytes[bytes.len() * to / 16..]].concat();
            assert_eq!(class(&hole), "broken", "without {from}/16 to {to}/16");
        }
        let short = [&bytes[..bytes.len() / 2], &[0xff, 0xd9][..]].concat();
        assert_eq!(class(&short), "broken", "ended in the middle");
        // What follows the end is nobody's business: phones put depth maps there.
        let trailing = [&bytes[..], &bytes[..]].concat();
        assert_eq!(class(&trailing), "ok", "something behind the end");
    }
    let mut bytes = png(160, 120, ExtendedColorType::Rgb8, &shapes(160, 120));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    assert_eq!(class(&bytes), "broken", "a PNG whose checksum is wrong");
}

#[test]
fn a_second_scan_cannot_hide_that_the_first_is_short() {
    let bytes = jpeg_with(160, 120, |_| {});
    let scan = bytes.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
    let header = &bytes[scan..scan + 14];
    let cut = [&bytes[..scan + 500], header, &bytes[bytes.len() - 2..]].concat();
    assert_eq!(class(&cut), "broken");
}

#[test]
fn what_is_no_picture_is_unsupported() {
    for bytes in
        [&b"hello, I am a text named .jpg"[..], b"GIF89a\0\0", b"%PDF-1.7", b"BM", b"RIFF\0\0\0\0WAVE"]
    {
        assert_eq!(class(bytes), "unsupported", "{bytes:?}");
    }
    assert_eq!(class(b""), "truncated");
    let finding = decode(b"text", &limits()).unwrap_err().finding();
    assert_eq!(finding, Some(FrameFinding::NothingToJudge(NotApplicableReason::UnsupportedMedia)));
    // Arithmetic coding and 12 bits are JPEGs that nobody sends.
    let mut arithmetic = jpeg_with(16, 16, |_| {});
    let frame = arithmetic.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    arithmetic[frame + 1] = 0xc9;
    assert_eq!(class(&arithmetic), "unsupported");
    let mut deep = jpeg_with(16, 16, |_| {});
    deep[frame + 4] = 12;
    assert_eq!(class(&deep), "unsupported");
}

/// A JPEG that is all header.
fn jpeg_header(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xd8, 0xff, 0xc0, 0, 17, 8];
    bytes.extend(height.to_be_bytes());
    bytes.extend(width.to_be_bytes());
    bytes.extend([3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0]);
    bytes
}

/// A PNG's signature and header, with nothing behind them.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bytes.extend(width.to_be_bytes());
    bytes.extend(height.to_be_bytes());
    bytes.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

#[test]
fn sizes_beyond_the_limits_are_refused_on_the_header() {
    let started = Instant::now();
    for (name, bytes) in [
        ("jpeg side", jpeg_header(20_000, 20_000)),
        ("jpeg side", jpeg_header(8_193, 1)),
        ("jpeg pixels", jpeg_header(8_000, 8_000)),
        ("png side", png_header(20_000, 20_000)),
        ("png side", png_header(u32::MAX, u32::MAX)),
        ("png pixels", png_header(7_000, 7_000)),
    ] {
        assert_eq!(class(&bytes), "too large", "{name}");
    }
    // A canvas of one pixel that holds the header of a huge picture.
    let mut webp = b"RIFF\x2a\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    webp.extend(b"VP8L\x05\0\0\0\x2f\xff\xff\xff\x0f\0");
    assert_eq!(class(&webp), "too large", "webp");
    let mut within_a_frame = b"RIFF\x3a\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    within_a_frame
        .extend(b"ANMF\x1e\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0VP8L\x05\0\0\0\x2f\xff\xff\xff\x0f\0");
    assert_eq!(class(&within_a_frame), "too large", "webp, in an animation's frame");
    let small = DecodeLimits { bytes_max: 10, ..limits() };
    assert!(matches!(decode(&jpeg_header(8, 8), &small), Err(DecodeError::TooLarge(_))));
    assert!(started.elapsed().as_secs() < 2, "from the header alone");
}

#[test]
fn frames_within_frames_are_not_followed() {
    // Each 24 bytes hold a further one: followed by recursion they would take a thread's whole stack.
    let (levels, frame) = (200_000_u32, 24);
    let mut webp = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    for level in (1..=levels).rev() {
        webp.extend(b"ANMF");
        webp.extend((level * frame - 8).to_le_bytes());
        webp.extend([0; 16]);
    }
    let length = u32::try_from(webp.len() - 8).unwrap();
    webp[4..8].copy_from_slice(&length.to_le_bytes());
    assert_eq!(class(&webp), "broken");
}

#[test]
fn a_png_of_zeros_cannot_fill_the_memory() {
    // 20,000² zeros deflate to 400 kB; the header is enough to refuse them. In allowed dimensions, 16 bits
    // and alpha would still take 8 + 4 bytes a pixel.
    let mut row_by_row = png_header(20_000, 20_000);
    row_by_row.extend([0; 1_000]);
    assert_eq!(class(&row_by_row), "too large");
    let side = 5_800;
    let zeros = vec![0; side as usize * side as usize * 8];
    let bytes = png(side, side, ExtendedColorType::Rgba16, &zeros);
    drop(zeros);
    assert!(bytes.len() < 4 << 20, "a bomb: {} bytes", bytes.len());
    assert_eq!(class(&bytes), "too large");
}

#[test]
fn scans_are_bounded_by_number_and_by_work() {
    let progressive =
        |width, height, scans| jpeg_with(width, height, |encoder| encoder.set_progressive_scans(scans));
    assert_eq!(class(&progressive(64, 64, 10)), "ok");
    // The last scan said again and again: valid, and as much work each time.
    let bytes = progressive(64, 64, 10);
    let scans: Vec<usize> =
        bytes.windows(2).enumerate().filter(|(_, p)| *p == [0xff, 0xda]).map(|(i, _)| i).collect();
    let (last, end) = (*scans.last().unwrap(), bytes.len() - 2);
    let mut bomb = bytes[..end].to_vec();
    (0..200).for_each(|_| bomb.extend(&bytes[last..end]));
    bomb.extend(&bytes[end..]);
    assert_eq!(class(&bomb), "too large");
    // Few pixels may have many scans, many pixels few.
    assert!(limits().check_scans(64, 6_000_000).is_ok());
    assert!(limits().check_scans(10, 40_000_000).is_ok());
    assert!(limits().check_scans(11, 40_000_000).is_err());
    assert!(limits().check_scans(65, 1).is_err());
}

#[test]
fn of_an_animation_it_is_the_first_picture() {
    // image-webp writes no animations; this one is put together from two still ones.
    let still = |value: u8| webp(4, 2, ExtendedColorType::Rgb8, &[value; 24])[12..].to_vec();
    let frame = |value: u8| {
        let mut body = vec![0, 0, 0, 0, 0, 0, 3, 0, 0, 1, 0, 0, 100, 0, 0, 0];
        body.extend(still(value));
        let mut chunk = b"ANMF".to_vec();
        chunk.extend((body.len() as u32).to_le_bytes());
        chunk.extend(body);
        chunk
    };
    let mut body = b"WEBPVP8X\x0a\0\0\0\x02\0\0\0\x03\0\0\x01\0\0ANIM\x06\0\0\0\0\0\0\0\0\0".to_vec();
    body.extend(frame(40));
    body.extend(frame(200));
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(body);
    let frame = decode(&bytes, &limits()).unwrap();
    assert!(frame.rgb().iter().all(|value| value.abs_diff(40) <= 1), "{:?}", frame.rgb());
}

#[test]
fn noise_is_survived() {
    let mut state = 7u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize
    };
    let seeds = [
        jpeg_with(48, 40, |_| {}),
        jpeg_with(48, 40, |encoder| encoder.set_progressive(true)),
        png(48, 40, ExtendedColorType::Rgb8, &shapes(48, 40)),
        webp(48, 40, ExtendedColorType::Rgb8, &shapes(48, 40)),
    ];
    for seed in &seeds {
        for _ in 0..150 {
            let mut bytes = seed.clone();
            for _ in 0..=random() % 8 {
                let at = random() % bytes.len();
                bytes[at] = random() as u8;
            }
            // A panic is caught by the pool; here it would fail the test, and it should.
            let outcome = std::panic::catch_unwind(|| drop(decode(&bytes, &limits())));
            assert!(outcome.is_ok(), "a decoder panicked");
        }
    }
}
