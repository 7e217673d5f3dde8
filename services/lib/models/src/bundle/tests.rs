use super::*;
use forensics::{CropMode, Thresholds};

fn manifest() -> Manifest {
    Manifest {
        name: "test".into(),
        version: "1.0".into(),
        architecture: Architecture::new(13, 2).unwrap(),
        fusion: Fusion::DeepfakeBench,
        preprocessing: Preprocessing { crop: CropMode::Box, face_detector: "scripted-1".into() },
        calibration: Calibration::Platt { slope: 0.7, intercept: -0.2, covariance: [0.02, 0.001, 0.03] },
        calibrated_on: "a test".into(),
        thresholds: Thresholds::new(0.8, 0.3),
        licence: "CC0".into(),
        training: "none".into(),
        measured: Vec::new(),
    }
}

fn written(storage: Storage) -> (tempfile::TempDir, Bundle) {
    let folder = tempfile::tempdir().unwrap();
    let weights = TwoStreamWeights::seeded(manifest().architecture, "bundle").unwrap();
    let bundle = write(folder.path(), &manifest(), &weights, storage, None).unwrap();
    (folder, bundle)
}

#[test]
fn a_bundle_comes_back_as_it_was_written() {
    for storage in [Storage::F32, Storage::F16] {
        let (folder, bundle) = written(storage);
        assert_eq!(bundle.manifest, manifest());
        assert_eq!(Manifest::read(folder.path()).unwrap(), manifest());
        let again = Bundle::read(folder.path()).unwrap();
        assert_eq!((again.sha256, &again.golden), (bundle.sha256, &bundle.golden));
        let given = TwoStreamWeights::seeded(manifest().architecture, "bundle").unwrap();
        for (name, tensor) in given.tensors() {
            let difference = (&again.weights.tensors()[name] - tensor).abs().max();
            let allowed = if storage == Storage::F32 { 0.0 } else { 1e-3 };
            assert!(f64::try_from(difference).unwrap() <= allowed, "{name} as {storage:?}");
        }
        let error = write(folder.path(), &manifest(), &given, storage, None).unwrap_err();
        assert!(matches!(error, BundleError::Exists(_)), "{error}");
    }
}

#[test]
fn a_bundle_says_what_was_measured_and_stays_the_same_model() {
    let (folder, bundle) = written(Storage::F16);
    let by_kind = [("swapped".to_owned(), [0.98, 0.97, 0.99])].into();
    let measured = Measured {
        on: "photos".into(),
        command: "touchstone-train evaluate 'my bundle' photos".into(),
        people: 9,
        pictures: 360,
        auc: [("as drawn".to_owned(), by_kind)].into(),
        false_alarms: [("as drawn".to_owned(), [0.01, 0.0, 0.02])].into(),
        ..Measured::default()
    };
    amend(folder.path(), |manifest| manifest.measured.push(measured.clone())).unwrap();
    let again = Bundle::read(folder.path()).unwrap();
    assert_eq!(again.manifest.measured, std::slice::from_ref(&measured));
    assert_eq!((again.sha256, again.golden), (bundle.sha256, bundle.golden));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing else is left in the folder");

    let error = amend(folder.path(), |manifest| manifest.measured = vec![measured; 300]).unwrap_err();
    assert!(matches!(error, BundleError::ManifestSize { .. }), "{error}");
    let error = amend(folder.path(), |manifest| manifest.version.clear()).unwrap_err();
    assert!(matches!(error, BundleError::Manifest(_)), "{error}");
    assert_eq!(Bundle::read(folder.path()).unwrap().manifest.measured.len(), 1);
}

#[test]
fn a_flipped_bit_is_refused_with_file_key_and_both_digests() {
    let (folder, _) = written(Storage::F16);
    for (file, key) in [(WEIGHTS, "weights"), (GOLDEN, "golden")] {
        let path = folder.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = Bundle::read(folder.path()).unwrap_err();
        let BundleError::Digest { expected, found, .. } = &error else { panic!("{error}") };
        let text = error.to_string();
        for part in [file, key, expected, found] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        bytes[last] ^= 1;
        fs::write(&path, &bytes).unwrap();
    }
    Bundle::read(folder.path()).unwrap();
}

#[test]
fn the_identity_covers_weights_and_calibration() {
    let (_folder, bundle) = written(Storage::F32);
    let (_other_folder, halved) = written(Storage::F16);
    assert_ne!(bundle.sha256, halved.sha256);
    let recalibrated = Manifest { calibration: Calibration::None, ..manifest() };
    assert_ne!(identity(&manifest(), "x"), identity(&recalibrated, "x"));
    assert_ne!(identity(&manifest(), "x"), identity(&manifest(), "y"));
}

#[test]
fn every_wrong_field_of_a_manifest_is_named() {
    let (folder, _) = written(Storage::F32);
    let path = folder.path().join(MANIFEST);
    let text = fs::read_to_string(&path).unwrap();
    let changed = text
        .replace("crop = \"box\"", "crop = \"sideways\"")
        .replace("weights.safetensors", "../weights.pth")
        .replace("middle_blocks = 2", "middle_blocks = 3")
        .replace("slope = 0.7", "slope = -0.7")
        .replace("forged = 0.8", "forged = 0.1");
    fs::write(&path, changed).unwrap();
    let error = Bundle::read(folder.path()).unwrap_err().to_string();
    for part in ["manifest.toml", "sideways", "../weights.pth", "3 middle blocks", "slope -0.7", "forged 0.1"]
    {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    fs::write(&path, format!("surprise = 1\n{text}")).unwrap();
    assert!(Bundle::read(folder.path()).unwrap_err().to_string().contains("surprise"));
}

#[test]
fn a_temperature_is_a_slope() {
    let (folder, _) = written(Storage::F32);
    let path = folder.path().join(MANIFEST);
    let text = fs::read_to_string(&path).unwrap();
    let start = text.find("[calibration]").unwrap();
    let end = text[start..].find("\n[thresholds]").map_or(text.len(), |end| start + end);
    let temperature =
        "[calibration]\nmethod = \"temperature\"\ntemperature = 2.0\nvariance = 0.01\ndata = \"x\"\n";
    fs::write(&path, format!("{}{temperature}{}", &text[..start], &text[end..])).unwrap();
    let calibration = Bundle::read(folder.path()).unwrap().manifest.calibration;
    assert_eq!(calibration, Calibration::Platt { slope: 0.5, intercept: 0.0, covariance: [0.01, 0.0, 0.0] });
}

#[test]
fn a_pickle_under_the_weights_name_is_refused() {
    let (folder, _) = written(Storage::F32);
    let pickle = b"\x80\x02}q\x00.";
    fs::write(folder.path().join(WEIGHTS), pickle).unwrap();
    let manifest_path = folder.path().join(MANIFEST);
    let text = fs::read_to_string(&manifest_path).unwrap();
    let old = text.lines().skip_while(|line| *line != "[weights]").find(|l| l.starts_with("sha256")).unwrap();
    let new = format!("sha256 = \"{}\"", hex::encode(Sha256::digest(pickle)));
    fs::write(&manifest_path, text.replacen(old, &new, 1)).unwrap();
    let error = Bundle::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains(WEIGHTS) && error.contains("safetensors file"), "{error}");
}
