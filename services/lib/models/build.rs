//! Compiles the C++ shim and tells the linker where libtorch lies.
//!
//! libtorch is found at run time through an rpath, so nobody exports a variable. Cargo passes a library's link arguments
//! to the library's own tests, benches and examples only. Every package whose binaries or tests link this crate
//! therefore carries this `build.rs`, which reads the same `LIBTORCH` that `.cargo/config.toml` sets for the build:
//!
//! ```ignore
//! fn main() {
//!     println!("cargo::rerun-if-env-changed=LIBTORCH");
//!     if let Ok(libtorch) = std::env::var("LIBTORCH") {
//!         println!("cargo::rustc-link-arg=-Wl,-rpath,{libtorch}/lib");
//!     }
//! }
//! ```

use std::env;
use std::path::PathBuf;

fn main() {
    // torch-sys resolved it (LIBTORCH, or wherever else it looks) and hands it on.
    let lib = PathBuf::from(env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names libtorch's lib folder"));
    let include = lib.parent().expect("lib has a parent").join("include");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo::rerun-if-changed=shim/shim.cpp");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .warnings(false)
        .file("shim/shim.cpp")
        .compile("touchstone_shim");
    // The shim calls into these two itself; behind it in the link order, so that they are not dropped as unneeded.
    println!("cargo::rustc-link-lib=torch_cpu");
    println!("cargo::rustc-link-lib=c10");
}
