//! Compiles the .proto files with protox, so that nobody has to install protoc.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["media", "verdict", "media_service", "verdict_service", "audit_service"]
        .map(|name| format!("touchstone/v1/{name}.proto"));
    println!("cargo:rerun-if-changed=touchstone");
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Reflection serves the descriptors, so that grpcurl needs no .proto file.
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().build_client(true).build_server(true).compile_fds(descriptors)?;
    Ok(())
}
