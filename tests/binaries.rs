//! The programs under test, built once for each run of the tests.
//!
//! A test does not know the binaries of other packages: it has them built, which is free when nothing changed. The
//! selections are those of the Makefile's lanes: with others cargo would choose other features and build anew.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where ready-made binaries lie (a release to be examined, say); nothing is built then.
const READY_MADE: &str = "TOUCHSTONE_BINARIES";

/// The lane `torch`.
const TORCH: &[&str] = &["models", "cli", "standalone", "trainer", "e2e", "lanes"];

/// The lane `bare`: the services of a fleet, whose workers take the scripted engines.
const BARE: &[&str] =
    &["forensics", "ops", "stream", "media", "proto", "scheduler", "query", "worker", "testbed", "lanes"];

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

/// Everything in one process.
pub fn standalone() -> PathBuf {
    torch().join("touchstone-standalone")
}

/// The command line.
pub fn touchstone() -> PathBuf {
    torch().join("touchstone")
}

/// Makes models.
pub fn touchstone_train() -> PathBuf {
    torch().join("touchstone-train")
}

/// A worker that judges by script.
pub fn worker() -> PathBuf {
    bare().join("touchstone-worker")
}

/// The front door.
pub fn scheduler() -> PathBuf {
    bare().join("touchstone-scheduler")
}

/// The answer.
pub fn query() -> PathBuf {
    bare().join("touchstone-query")
}

fn torch() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| built(TORCH))
}

fn bare() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| built(BARE))
}

fn built(packages: &[&str]) -> PathBuf {
    if let Some(folder) = std::env::var_os(READY_MADE) {
        return PathBuf::from(folder);
    }
    let mut build = Command::new(env!("CARGO"));
    build.args(["test", "--no-run", "--quiet", "--locked"]).current_dir(root());
    for package in packages {
        build.args(["-p", package]);
    }
    let status = build.status().expect("cargo runs");
    assert!(status.success(), "the binaries under test do not build");
    let test = std::env::current_exe().expect("a test has a path");
    test.parent().and_then(Path::parent).expect("target/<profile>/deps/test").to_owned()
}
