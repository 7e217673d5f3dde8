//! The commands of `touchstone-train`, as a person runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

mod forge;
mod judge;
mod train;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn command(arguments: &[&str]) -> Command {
    command_on("cpu", arguments)
}

fn command_on(device: &str, arguments: &[&str]) -> Command {
    let weights = root().join(".deps/models/mtcnn.safetensors");
    assert!(weights.exists(), "{}: `make torch` makes it", weights.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_touchstone-train"));
    command.args(arguments).arg("--face-detector").arg(weights).args(["--device", device, "--threads", "1"]);
    command
}

fn trainer(arguments: &[&str]) -> Output {
    command(arguments).output().expect("touchstone-train starts")
}

/// The name of a path as an argument.
fn word(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The astronaut under a light that only this person stands in: faces that the detector finds, and no near-duplicates.
fn portrait(person: u32) -> Vec<u8> {
    let astronaut =
        std::fs::read(root().join(".deps/samples/astronaut.png")).expect("`make setup` fetches the samples");
    let astronaut =
        media::decode(&astronaut, &media::DecodeLimits::default()).expect("the sample is a picture");
    let (width, height) = (astronaut.width(), astronaut.height());
    let (across, down) = (3.0 + (person % 6) as f32 * 0.9, 2.0 + (person / 6) as f32 * 1.2);
    let mut picture = image::RgbImage::new(width, height);
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
        let light = 1.0 + 0.35 * (u * across * 6.3 + person as f32).sin() * (v * down * 6.3).cos();
        let from = if person.is_multiple_of(2) { x } else { width - 1 - x };
        *pixel =
            image::Rgb(astronaut.pixel(from, y).map(|value| (f32::from(value) * light).min(255.0) as u8));
    }
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).expect("encoding into memory succeeds");
    bytes.into_inner()
}
