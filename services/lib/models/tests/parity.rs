//! The published network's outputs, through the plain and the inference path.

use std::path::Path;

#[test]
fn every_published_tensor_is_reproduced_on_every_path() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/fixtures/parity"));
    let mut report = Vec::new();
    let within = models::parity::run(folder, &mut report).unwrap();
    let report = String::from_utf8(report).unwrap();
    println!("{report}");
    assert!(within, "out of bounds:\n{report}");
    for part in ["parity-official", "parity-deepfakebench", "plain", "inference", "dual_cma1.1.samples"] {
        assert!(report.contains(part), "{part} was not compared:\n{report}");
    }
}

#[test]
fn a_folder_without_parity_files_is_an_error_and_not_a_success() {
    let folder = tempfile::tempdir().unwrap();
    let error = models::parity::run(folder.path(), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("no *.safetensors"), "{error}");
}
