//! `cargo run -p models --example parity -- [FOLDER]`: every `*.safetensors` of the folder against the network, through the
//! plain and the inference path. Exits with 1 when a tensor is out of bounds.

use std::io::stdout;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    models::prepare_process();
    let copies = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/fixtures/parity");
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(copies), PathBuf::from);
    let within = models::parity::run(&folder, &mut stdout().lock())?;
    Ok(if within { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
