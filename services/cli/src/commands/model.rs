//! `touchstone model`: checkpoints become bundles, bundles are looked at and held to their golden vectors.

use std::path::Path;

use forensics::{Calibration, CropMode, DeviceClass, ForgeryDetector};
use models::bundle::{BundleError, Interval, Manifest, Measured, Storage};
use models::face_detector::{SHA256, convert};
use models::import::{ImportError, ImportOptions, import_checkpoint};
use models::tensor_file::TensorFileError;
use models::{Architecture, Bundle, DeviceConfig, LoadError, TwoStream};

use crate::arguments::{Crop, Dialect, Model, ModelBundle, ModelImport, ModelImportFaces, Preset};
use crate::failure::{Failure, Status};
use crate::terminal::{Terminal, cell};

/// All local: no service is asked.
pub(crate) fn model(what: Model, terminal: &mut Terminal) -> Result<Status, Failure> {
    match what {
        Model::Import(what) => import(&what, terminal),
        Model::ImportFaces(what) => import_faces(&what, terminal),
        Model::Inspect(what) => inspect(&what, terminal),
        Model::Verify(what) => verify(&what, terminal),
    }?;
    Ok(Status::Ok)
}

fn import(what: &ModelImport, terminal: &mut Terminal) -> Result<(), Failure> {
    let dialect = match what.dialect {
        Dialect::Official => models::import::Dialect::Official,
        Dialect::Deepfakebench => models::import::Dialect::DeepfakeBench,
    };
    let mut options = ImportOptions::published(dialect, &what.name, &what.bundle_version);
    options.architecture = match what.preset {
        Preset::Full => Architecture::FULL,
        Preset::Mini => Architecture::MINI,
    };
    if let Some(crop) = what.crop {
        options.crop = match crop {
            Crop::Aligned => CropMode::Aligned,
            Crop::Box => CropMode::Box,
            Crop::None => CropMode::None,
        };
    }
    options.storage = if what.f16 { Storage::F16 } else { Storage::F32 };
    let report = import_checkpoint(&what.checkpoint, dialect, &options, &what.out).map_err(|error| {
        let next = match &error {
            ImportError::Weights { .. } => "try the other --dialect, or another --preset",
            ImportError::Bundle(BundleError::Exists(_)) => "name a new folder with --out",
            _ => "the checkpoint must be a .pth of PyTorch (nothing in it is executed) or a .safetensors",
        };
        Failure::new(Status::Data, error).next(next)
    })?;
    let ignored = report.ignored.len();
    if terminal.is_json() {
        let bundle = what.out.display().to_string();
        let sha256 = hex::encode(report.bundle.sha256);
        return terminal.say(serde_json::json!({ "bundle": bundle, "sha256": sha256,
            "imported": report.imported, "ignored": report.ignored }));
    }
    terminal.say(format_args!("{} tensors imported, {ignored} entries not needed", report.imported))?;
    show(&what.out, &report.bundle, terminal)?;
    terminal.hint("it has no calibration yet, so its verdicts abstain; serve it with --model");
    Ok(())
}

fn import_faces(what: &ModelImportFaces, terminal: &mut Terminal) -> Result<(), Failure> {
    if let Some(folder) = what.out.parent() {
        std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, &error))?;
    }
    convert(&what.pnet, &what.rnet, &what.onet, &what.out).map_err(|error| {
        Failure::new(Status::Data, error).next("the three files are in the wheel of facenet-pytorch 2.6.0")
    })?;
    let file = what.out.display().to_string();
    if terminal.is_json() {
        return terminal.say(serde_json::json!({ "file": file, "sha256": SHA256 }));
    }
    terminal.say(format_args!("{file}: sha256 {SHA256}"))
}

fn inspect(what: &ModelBundle, terminal: &mut Terminal) -> Result<(), Failure> {
    let bundle = Bundle::read(&what.bundle).map_err(|error| refused(&error))?;
    show(&what.bundle, &bundle, terminal)
}

fn verify(what: &ModelBundle, terminal: &mut Terminal) -> Result<(), Failure> {
    let detector = TwoStream::load(&what.bundle, &DeviceConfig::default()).map_err(|error| match &error {
        LoadError::Bundle(error) => refused(error),
        _ => Failure::new(Status::Data, &error).next("the bundle must not be served: import it again"),
    })?;
    let identity = detector.identity();
    let (precision, device) = (identity.precision.as_str(), identity.device.as_str());
    let sha256 = hex::encode(identity.sha256);
    if terminal.is_json() {
        return terminal.say(serde_json::json!({ "sha256": sha256, "verified": true,
            "precision": precision, "device": device }));
    }
    let here = if identity.device == DeviceClass::Cuda { "this GPU" } else { "this CPU" };
    terminal.say(format_args!(
        "{} {}: digests match, and {here} reproduces the golden vectors in {precision}; sha256 {sha256}",
        identity.name, identity.version
    ))
}

fn show(folder: &Path, bundle: &Bundle, terminal: &mut Terminal) -> Result<(), Failure> {
    let facts = facts(&bundle.manifest);
    let sha256 = hex::encode(bundle.sha256);
    if terminal.is_json() {
        let mut json: serde_json::Map<_, _> =
            facts.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        json.insert("sha256".to_owned(), sha256.into());
        json.insert("measured".to_owned(), serde_json::json!(bundle.manifest.measured));
        return terminal.say(serde_json::Value::from(json));
    }
    let mut table = terminal.table(&[]);
    table.add_row([terminal.bold("bundle"), cell(folder.display().to_string())]);
    table.add_row([terminal.bold("sha256"), cell(sha256)]);
    for (name, value) in facts {
        table.add_row([terminal.bold(name), cell(value)]);
    }
    for found in &bundle.manifest.measured {
        for (row, line) in measured(found).into_iter().enumerate() {
            table.add_row([terminal.bold(if row == 0 { "measured" } else { "" }), cell(line)]);
        }
    }
    terminal.show(&table)
}

/// A line for each condition; the intervals hold 95 %.
fn measured(found: &Measured) -> Vec<String> {
    let Measured { on, command, people, pictures, .. } = found;
    let number = |[value, low, high]: Interval| format!("{value:.3} ({low:.3}\u{2013}{high:.3})");
    let mut lines = vec![format!("on {on}: {pictures} pictures of {people} people")];
    for (condition, kinds) in &found.auc {
        let mut parts: Vec<String> =
            kinds.iter().map(|(kind, auc)| format!("AUC {kind} {}", number(*auc))).collect();
        let more = [("false alarms", &found.false_alarms), ("calibration error", &found.calibration_error)];
        for (what, by_condition) in more {
            parts.extend(by_condition.get(condition).map(|share| format!("{what} {}", number(*share))));
        }
        lines.push(format!("{condition}: {}", parts.join(", ")));
    }
    lines.push(format!("by: {command}"));
    lines
}

fn facts(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let calibration = match manifest.calibration {
        Calibration::None => "none: every verdict abstains".to_owned(),
        Calibration::Platt { slope, intercept, .. } => {
            format!("sigmoid({slope} logit + {intercept}), fitted on {}", manifest.calibrated_on)
        }
    };
    let thresholds = manifest.thresholds.map_or_else(
        || "none".to_owned(),
        |t| format!("forged at or above {}, authentic below {}", t.forged, t.authentic),
    );
    vec![
        ("name", manifest.name.clone()),
        ("version", manifest.version.clone()),
        ("architecture", manifest.architecture.to_string()),
        ("fusion", manifest.fusion.name().to_owned()),
        ("preprocessing", manifest.preprocessing.name()),
        ("calibration", calibration),
        ("thresholds", thresholds),
        ("licence", manifest.licence.clone()),
        ("training", manifest.training.clone()),
    ]
}

fn refused(error: &BundleError) -> Failure {
    let status = match error {
        BundleError::Io { source, .. } | BundleError::TensorFile(TensorFileError::Io { source, .. }) => {
            if source.kind() == std::io::ErrorKind::NotFound {
                Status::NoInput
            } else {
                Status::Io
            }
        }
        _ => Status::Data,
    };
    Failure::new(status, error)
        .next("a bundle is a folder made by `touchstone-train` or `touchstone model import`")
}
