//! The face detector at 720p on one thread: frames in batches against one by one.
//!
//! `cargo bench --profile dev -p models --bench faces`. Machines are noisy: the ratios count.
#![allow(clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use forensics::{FaceDetector, Frame};
use media::DecodeLimits;
use models::DeviceConfig;
use models::face_detector::{Mtcnn, convert};

/// Frames in a round.
const FRAMES: usize = 16;
/// Rounds of all candidates, one after another, so that a slow minute of the machine meets each of them.
const ROUNDS: usize = 3;
/// Frames of a call, the first being what the others are compared with.
const BATCHES: [usize; 4] = [1, 4, 8, 16];

fn main() -> Result<()> {
    models::prepare_process();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let mut detector = load(&root)?;
    let frame = decode(&root.join("tests/fixtures/astronauts.png"))?;
    ensure!((frame.width(), frame.height()) == (1280, 720), "the picture is not 720p");
    let frames = vec![&frame; FRAMES];
    ensure!(detector.detect(&frames)?.iter().all(|faces| faces.len() == 6), "the picture has six faces");
    let mut seconds = vec![Vec::new(); BATCHES.len()];
    for _ in 0..ROUNDS {
        for (batch, seconds) in BATCHES.iter().zip(&mut seconds) {
            let start = thread_seconds()?;
            for part in frames.chunks(*batch) {
                detector.detect(part)?;
            }
            seconds.push(thread_seconds()? - start);
        }
    }
    let rates: Vec<f64> = seconds.into_iter().map(|times| FRAMES as f64 / median(times)).collect();
    for (batch, rate) in BATCHES.iter().zip(&rates) {
        let ratio = rate / rates[0];
        println!("BENCH faces_720p_batch_{batch} {rate:.2} frames/cpu-s ratio {ratio:.2} against one by one");
    }
    Ok(())
}

fn load(root: &Path) -> Result<Mtcnn> {
    let folder = std::env::temp_dir().join(format!("touchstone-faces-{}", std::process::id()));
    let published = |name: &str| -> PathBuf { root.join(".deps/facenet").join(name) };
    let weights = folder.join("mtcnn.safetensors");
    convert(&published("pnet.pt"), &published("rnet.pt"), &published("onet.pt"), &weights)
        .context("`make setup` puts the published weights into .deps/facenet")?;
    let detector = Mtcnn::load(&weights, &DeviceConfig { threads: 1, ..DeviceConfig::default() })?;
    fs::remove_dir_all(&folder)?;
    Ok(detector)
}

fn decode(path: &Path) -> Result<Frame> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let limits = DecodeLimits {
        side_max: 8192,
        pixels_max: 40_000_000,
        bytes_max: 32 << 20,
        memory_max: 512 << 20,
        scans_max: 64,
    };
    Ok(media::decode(&bytes, &limits)?)
}

/// CPU time of this thread, which alone computes. The first number of schedstat is in nanoseconds.
fn thread_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(stat.split_whitespace().next().context("no number in schedstat")?.parse::<f64>()? / 1e9)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
