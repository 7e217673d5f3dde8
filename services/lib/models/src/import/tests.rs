use std::fs;
use std::path::PathBuf;

use tch::{Kind, Tensor};
use zip::CompressionMethod::{Deflated, Stored};

use super::*;
use crate::bundle::{Golden, patterns};
use crate::pickle::writer::{self, Node, Saved};
use crate::tensor_file::TensorFile;

/// The smallest network that there is: the logic is the same in every size.
fn architecture() -> Architecture {
    Architecture::new(10, 2).unwrap()
}

fn source() -> TwoStreamWeights {
    TwoStreamWeights::seeded(architecture(), "import").unwrap()
}

fn options(dialect: Dialect) -> ImportOptions {
    ImportOptions { architecture: architecture(), ..ImportOptions::published(dialect, "two-stream", "1") }
}

/// The source's entries as the dialect's own code would name them.
fn entries(dialect: Dialect) -> BTreeMap<String, Tensor> {
    let weights = source();
    let own = weights.tensors().iter().map(|(name, tensor)| (dialect.own_name(name), tensor.shallow_clone()));
    let mut entries: BTreeMap<String, Tensor> = own.collect();
    if dialect == Dialect::DeepfakeBench {
        for name in
            ["blur.weight", "backbone_rgb.adjust_channel.0.weight", "backbone_srm.adjust_channel.1.bias"]
        {
            entries.insert(name.to_owned(), Tensor::from_slice(&[1.0_f32, 2.0]));
        }
    }
    entries
}

/// As `torch.save` writes them; every fourth float tensor a channels-last view, every fifth a parameter.
fn saved(entries: &BTreeMap<String, Tensor>) -> Saved {
    let mut storages = Vec::new();
    let mut nodes = Vec::new();
    for (index, (name, tensor)) in entries.iter().enumerate() {
        let mut view = writer::Tensor::whole(index, &tensor.size());
        if tensor.kind() == Kind::Int64 {
            storages.push(writer::Storage::longs(&Vec::<i64>::try_from(tensor.flatten(0, -1)).unwrap()));
        } else {
            let mut tensor = tensor.shallow_clone();
            if let (&[_, channels, height, width], 0) = (view.shape.as_slice(), index % 4) {
                tensor = tensor.permute([0, 2, 3, 1]).contiguous();
                view.strides = vec![height * width * channels, 1, width * channels, channels];
            }
            storages.push(writer::Storage::floats(&Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap()));
        }
        nodes.push((name.clone(), if index % 5 == 0 { Node::Parameter(view) } else { Node::Tensor(view) }));
    }
    Saved { root: Node::StateDict(nodes), storages }
}

fn wrapped(entries: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    entries.into_iter().map(|(name, tensor)| (format!("module.{name}"), tensor)).collect()
}

/// Beside other things, as a training script keeps it.
fn nested(mut saved: Saved) -> Saved {
    let text = |text: &str| Node::Text(text.to_owned());
    saved.root = Node::Dict(vec![
        (text("epoch"), Node::Int(7)),
        (text("best"), Node::Float(0.958)),
        (text("state_dict"), saved.root),
        (text("args"), Node::Call("argparse", "Namespace", Vec::new())),
    ]);
    saved
}

fn import(bytes: &[u8], dialect: Dialect) -> Result<ImportReport, ImportError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    fs::write(&path, bytes).unwrap();
    import_checkpoint(&path, dialect, &options(dialect), &folder.path().join("bundle"))
}

/// Every tensor bit for bit, and the same answers to the same pictures through the dialect's own wiring.
fn assert_same_network(report: &ImportReport, dialect: Dialect) {
    let (source, bundle) = (source(), &report.bundle);
    assert_eq!(report.imported, source.tensors().len());
    for (name, tensor) in source.tensors() {
        assert_eq!(&bundle.weights.tensors()[name], tensor, "{name}");
    }
    let scores = Golden::compute(&source, dialect.fusion(), &patterns()).unwrap();
    assert_eq!(bundle.golden.logits, scores.logits);
    assert_eq!(bundle.manifest.fusion, dialect.fusion());
    assert_eq!(bundle.manifest.preprocessing.crop, dialect.crop());
    assert!(bundle.manifest.thresholds.is_none());
}

#[test]
fn official_checkpoints_of_every_form_score_as_their_source() {
    let plain = saved(&entries(Dialect::Official));
    let parallel = nested(saved(&wrapped(entries(Dialect::Official))));
    for bytes in [plain.zip(Stored), plain.legacy(), parallel.zip(Deflated), parallel.legacy()] {
        let report = import(&bytes, Dialect::Official).unwrap();
        assert_same_network(&report, Dialect::Official);
        assert!(report.ignored.is_empty());
    }
}

#[test]
fn deepfakebench_checkpoints_of_every_form_score_as_their_source() {
    let plain = saved(&entries(Dialect::DeepfakeBench));
    let parallel = saved(&wrapped(entries(Dialect::DeepfakeBench)));
    for bytes in [plain.zip(Stored), parallel.legacy(), nested(parallel).zip(Stored), nested(plain).legacy()]
    {
        let report = import(&bytes, Dialect::DeepfakeBench).unwrap();
        assert_same_network(&report, Dialect::DeepfakeBench);
        assert_eq!(report.ignored.len(), 3, "{:?}", report.ignored);
    }
}

#[test]
fn safetensors_are_told_by_their_bytes() {
    for dialect in [Dialect::Official, Dialect::DeepfakeBench] {
        let file = TensorFile { tensors: entries(dialect), ..TensorFile::default() };
        assert_same_network(&import(&file.to_bytes().unwrap(), dialect).unwrap(), dialect);
    }
}

#[test]
fn the_dialects_are_two_networks() {
    let scores =
        |dialect: Dialect| import(&saved(&entries(dialect)).legacy(), dialect).unwrap().bundle.golden.logits;
    assert_ne!(scores(Dialect::Official), scores(Dialect::DeepfakeBench));
    let error = import(&saved(&entries(Dialect::DeepfakeBench)).legacy(), Dialect::Official).unwrap_err();
    let text = error.to_string();
    for name in ["xception_rgb.model.conv1.weight", "backbone_rgb.conv1.weight", "blur.weight"] {
        assert!(text.contains(name), "{name} is not in: {text}");
    }
}

#[test]
fn flat_pointwise_weights_are_kernels() {
    let mut flat = entries(Dialect::Official);
    for (name, tensor) in &mut flat {
        if name.ends_with(".pointwise.weight") {
            *tensor = tensor.flatten(1, -1);
        }
    }
    assert_same_network(&import(&saved(&flat).zip(Stored), Dialect::Official).unwrap(), Dialect::Official);
}

#[test]
fn missing_extra_and_misshapen_keys_are_named_as_the_checkpoint_names_them() {
    let mut wrong = entries(Dialect::DeepfakeBench);
    drop(wrong.remove("backbone_rgb.block4.rep.1.conv1.weight").unwrap());
    drop(wrong.remove("backbone_srm.last_linear.bias").unwrap());
    wrong.insert("backbone_rgb.block13.skip.weight".to_owned(), Tensor::from_slice(&[1.0_f32]));
    wrong.insert("dual_cma0.gamma1".to_owned(), Tensor::from_slice(&[1.0_f32, 2.0]));
    wrong.insert("fusion.convblk.1.num_batches_tracked".to_owned(), Tensor::from_slice(&[1.0_f32]));
    let text = import(&saved(&wrong).zip(Stored), Dialect::DeepfakeBench).unwrap_err().to_string();
    for part in [
        "2 missing: backbone_rgb.block4.rep.1.conv1.weight, backbone_srm.last_linear.bias",
        "1 unexpected: backbone_rgb.block13.skip.weight",
        "2 misshapen: dual_cma0.gamma1 is [2] Float, needs [1] Float",
        "fusion.convblk.1.num_batches_tracked",
        "dialect deepfakebench",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[test]
fn a_key_that_is_there_twice_is_an_error() {
    let mut twice = entries(Dialect::DeepfakeBench);
    let weight = twice["backbone_rgb.last_linear.weight"].shallow_clone();
    twice.insert("backbone_rgb.last_linear.1.weight".to_owned(), weight);
    let error = import(&saved(&twice).zip(Stored), Dialect::DeepfakeBench).unwrap_err().to_string();
    assert!(
        error.contains("backbone_rgb.last_linear.1.weight and backbone_rgb.last_linear.weight"),
        "{error}"
    );
}

#[test]
fn nothing_is_left_where_an_import_failed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("hostile.pth"), folder.path().join("bundle"));
    let root = Node::Call("posix", "system", vec![Node::Text("true".to_owned())]);
    fs::write(&path, Saved { root, storages: Vec::new() }.zip(Stored)).unwrap();
    let error = import_checkpoint(&path, Dialect::Official, &options(Dialect::Official), &out).unwrap_err();
    assert!(error.to_string().contains("posix.system"), "{error}");
    assert!(error.to_string().contains("hostile.pth"), "{error}");
    assert!(!out.exists());
    let absent = PathBuf::from("absent.pth");
    let error = import_checkpoint(&absent, Dialect::Official, &options(Dialect::Official), &out).unwrap_err();
    assert!(error.to_string().contains("absent.pth"), "{error}");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("keep"), "me").unwrap();
    fs::write(&path, saved(&entries(Dialect::Official)).legacy()).unwrap();
    let error = import_checkpoint(&path, Dialect::Official, &options(Dialect::Official), &out).unwrap_err();
    assert!(matches!(error, ImportError::Bundle(BundleError::Exists(_))), "{error}");
}

#[test]
fn dialects_have_names() {
    for dialect in [Dialect::Official, Dialect::DeepfakeBench] {
        assert_eq!(dialect.name().parse(), Ok(dialect));
    }
    assert!("dfb".parse::<Dialect>().is_err());
}

/// The ImageNet checkpoint: one Xception under bare names, pointwise weights as matrices, another classifier.
#[test]
fn an_imagenet_xception_starts_both_streams() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("xception.safetensors");
    let given = TwoStreamWeights::seeded(architecture(), "imagenet").unwrap();
    let mut file = TensorFile::default();
    for (name, tensor) in given.tensors() {
        let Some(bare) = name.strip_prefix("xception_rgb.model.") else { continue };
        if bare.starts_with("last_linear") || bare.ends_with("num_batches_tracked") {
            continue;
        }
        let flat = bare.ends_with("pointwise.weight");
        let tensor = if flat { tensor.squeeze_dim(3).squeeze_dim(2) } else { tensor.copy() };
        file.tensors.insert(bare.to_owned(), tensor);
    }
    file.tensors.insert("fc.weight".to_owned(), Tensor::from_slice(&[1.0_f32, 2.0]));
    fs::write(&path, file.to_bytes().unwrap()).unwrap();

    let base = source();
    let started = imagenet_xception(&path, &base).unwrap();
    for (name, tensor) in started.tensors() {
        let bare =
            name.strip_prefix("xception_rgb.model.").or_else(|| name.strip_prefix("xception_srm.model."));
        let expected = match bare.filter(|bare| file.tensors.contains_key(*bare)) {
            Some(bare) => &given.tensors()[&format!("xception_rgb.model.{bare}")],
            None => &base.tensors()[name],
        };
        assert!(tensor.equal(expected), "{name}");
    }

    file.tensors.remove("block12.rep.4.pointwise.weight");
    fs::write(&path, file.to_bytes().unwrap()).unwrap();
    let error = imagenet_xception(&path, &base).unwrap_err().to_string();
    assert!(error.contains("xception_srm.model.block12.rep.4.pointwise.weight"), "{error}");
}
