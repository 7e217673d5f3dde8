//! Frames a second that one core decodes and crops.
//!
//! `cargo bench -p media --bench media`. Counted in CPU time of the one thread that works, so that neighbours
//! on a busy machine do not matter.
#![allow(clippy::print_stdout, reason = "a bench prints its result")]

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use forensics::{BoundingBox, CropMode, DetectedFace, Frame, Point};
use image::imageops::{self, FilterType};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use media::{DecodeLimits, crop_face, decode};

const WIDTH: u32 = 1_280;
const HEIGHT: u32 = 720;

/// The fastest of so many rounds: neighbours on the same core's other thread only ever take away.
const ROUNDS: usize = 40;
const FRAMES: usize = 8;

fn main() {
    let picture = picture();
    // libjpeg's own defaults, and a camera's.
    for (name, sampling, quality) in [
        ("decode_crop_720p", SamplingFactor::R_4_2_0, 75),
        ("decode_crop_720p_q95_444", SamplingFactor::R_4_4_4, 95),
    ] {
        let mut jpeg = Vec::new();
        let mut encoder = Encoder::new(&mut jpeg, quality);
        encoder.set_sampling_factor(sampling);
        encoder.encode(&picture, WIDTH as u16, HEIGHT as u16, ColorType::Rgb).expect("a valid picture");
        measure(name, &jpeg);
    }
}

fn measure(name: &str, jpeg: &[u8]) {
    let limits = DecodeLimits {
        side_max: 8_192,
        pixels_max: 40_000_000,
        bytes_max: 32 << 20,
        memory_max: 256 << 20,
        scans_max: 64,
    };
    let decoded = || decode(jpeg, &limits).expect("it was just encoded");
    let frame = decoded();
    let ours = rate(|| drop(black_box(crop_face(&decoded(), &face(), CropMode::Aligned))));
    let boxed = rate(|| drop(black_box(crop_face(&decoded(), &face(), CropMode::Box))));
    // The straightforward way: the decoder as it comes, the crop by the `image` crate.
    let other = rate(|| {
        let options = zune_core::options::DecoderOptions::default();
        let cursor = zune_core::bytestream::ZCursor::new(jpeg);
        let rgb = zune_jpeg::JpegDecoder::new_with_options(cursor, options).decode().expect("as above");
        let picture = image::RgbImage::from_raw(WIDTH, HEIGHT, rgb).expect("as above");
        let part = imageops::crop_imm(&picture, 480, 160, 390, 390).to_image();
        drop(black_box(imageops::resize(&part, 256, 256, FilterType::Triangle)));
    });
    let only = rate(|| drop(black_box(decoded())));
    let aligned = rate(|| drop(black_box(crop_face(&frame, &face(), CropMode::Aligned))));
    let kilobytes = jpeg.len() / 1_000;
    println!("{name}: {kilobytes} kB a frame; decode alone {only:.0}/s, aligned crop alone {aligned:.0}/s");
    let against = "zune-jpeg + image::imageops";
    println!("BENCH {name} {ours:.0} frames/s ratio {:.2} against {against}", ours / other);
    println!("BENCH {name}_box {boxed:.0} frames/s ratio {:.2} against {against}", boxed / other);
}

fn rate(mut work: impl FnMut()) -> f64 {
    work();
    let mut rates: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let before = cpu_time();
            (0..FRAMES).for_each(|_| work());
            FRAMES as f64 / (cpu_time() - before).as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[ROUNDS - 1]
}

/// CPU time of this thread: the first number of `schedstat`, in nanoseconds.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with schedstats");
    let nanos = text.split_whitespace().next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.expect("schedstat starts with a number"))
}

/// A face of 300 pixels, a little turned.
fn face() -> DetectedFace {
    let landmarks = [(590.0, 290.0), (705.0, 300.0), (645.0, 355.0), (592.0, 415.0), (690.0, 424.0)];
    DetectedFace {
        bounds: BoundingBox { left: 525.0, top: 205.0, right: 825.0, bottom: 505.0 },
        landmarks: landmarks.map(|(x, y)| Point { x, y }),
        confidence: 1.0,
    }
}

/// The astronaut enlarged, where the samples are there, else soft shapes; with a camera's noise on it.
fn picture() -> Vec<u8> {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../.deps/samples/astronaut.png");
    let soft = match image::open(sample) {
        Ok(picture) => imageops::resize(&picture.to_rgb8(), WIDTH, HEIGHT, FilterType::CatmullRom).into_raw(),
        Err(_) => shapes().into_rgb(),
    };
    let mut state = 1u64;
    let mut noise = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as i32 % 7 - 3
    };
    soft.into_iter().map(|value| (i32::from(value) + noise()).clamp(0, 255) as u8).collect()
}

fn shapes() -> Frame {
    let value = |x: u32, y: u32, channel: u32| {
        let wave = ((x + 90 * channel) as f64 / 37.0).sin() + (y as f64 / 23.0).cos();
        let disc = f64::from(u8::from((x % 160).abs_diff(80).pow(2) + (y % 144).abs_diff(72).pow(2) < 3_000));
        (110.0 + 40.0 * wave + 50.0 * disc) as u8
    };
    let rows = (0..HEIGHT).flat_map(|y| (0..WIDTH).flat_map(move |x| (0..3).map(move |c| value(x, y, c))));
    Frame::new(WIDTH, HEIGHT, rows.collect()).expect("720p")
}
