//! What a network starts from: chance, ImageNet, or a bundle.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use forensics::CropMode;
use models::two_stream::{Entry, Role, entries};
use models::{Architecture, Bundle, Fusion, TwoStreamWeights};
use tch::{Device, Kind, Tensor};

/// The first weights.
pub(crate) struct First {
    pub(crate) weights: TwoStreamWeights,
    /// What they are, for the model's card: a bundle by its own name, since its folder may hold another one later.
    pub(crate) told: String,
}

/// Of a bundle's folder, of the file of an ImageNet Xception, or of chance: drawn with `seed` on the CPU, so that it does not
/// depend on the device.
pub(crate) fn first(start: Option<&Path>, architecture: Architecture, seed: i64) -> Result<First> {
    match start {
        None => Ok(First { weights: chance(architecture, seed)?, told: "chance".to_owned() }),
        Some(folder) if folder.is_dir() => from_bundle(folder, architecture),
        Some(path) => {
            anyhow::ensure!(
                architecture == Architecture::FULL,
                "{}: a file is an ImageNet Xception's, which has the widths of --preset full; a bundle is a folder",
                path.display()
            );
            let base = chance(architecture, seed)?;
            let found = models::import::imagenet_xception(path, &base);
            let weights = found.with_context(|| format!("{}: not an ImageNet Xception", path.display()))?;
            let name = path.file_name().unwrap_or_default();
            Ok(First { weights, told: format!("{}, an ImageNet Xception", name.display()) })
        }
    }
}

fn from_bundle(folder: &Path, architecture: Architecture) -> Result<First> {
    let Bundle { manifest, weights, sha256, .. } =
        Bundle::read(folder).with_context(|| folder.display().to_string())?;
    let found = manifest.architecture;
    anyhow::ensure!(
        found == architecture,
        "{}: the bundle is {found}, the preset {architecture}; name the bundle's preset",
        folder.display()
    );
    let (fusion, crop) = (manifest.fusion, manifest.preprocessing.crop);
    anyhow::ensure!(
        fusion == Fusion::Official && crop == CropMode::Aligned,
        "{}: a network of fusion {} on {} crops; what is trained here is official on aligned ones, so name another bundle",
        folder.display(),
        fusion.name(),
        crop.as_str()
    );
    let told = format!("{} {} (sha256 {})", manifest.name, manifest.version, hex::encode(&sha256[..8]));
    Ok(First { weights, told })
}

/// Convolutions as He et al. (*Delving Deep into Rectifiers*, 2015) draw them for what a map receives, cross attention by
/// Xavier with gain 0.02 and γ = 0 as published, normalisations as the identity.
fn chance(architecture: Architecture, seed: i64) -> Result<TwoStreamWeights> {
    tch::manual_seed(seed);
    let filters = TwoStreamWeights::seeded(architecture, "filters")?;
    let mut tensors = BTreeMap::new();
    for entry in entries(architecture) {
        let tensor = match entry.role {
            Role::Filter | Role::Counter => filters.tensors()[&entry.name].copy(),
            Role::Parameter | Role::Statistic => first_values(&entry)?,
        };
        tensors.insert(entry.name, tensor);
    }
    Ok(TwoStreamWeights::from_tensors(tensors, architecture)?)
}

fn first_values(entry: &Entry) -> Result<Tensor> {
    let shape = entry.shape.as_slice();
    let leaf = entry.name.rsplit('.').next().unwrap_or_default();
    let options = (Kind::Float, Device::Cpu);
    let normal =
        |deviation: f64| -> Result<Tensor> { Ok(Tensor::f_randn(shape, options)?.f_mul_scalar(deviation)?) };
    let (outputs, inputs) = (shape[0], shape[1..].iter().product::<i64>());
    match leaf {
        "running_var" => Ok(Tensor::f_ones(shape, options)?),
        _ if shape.len() >= 2 && entry.name.starts_with("dual_cma") => {
            normal(0.02 * (2.0 / (inputs + outputs) as f64).sqrt())
        }
        _ if entry.name.contains("last_linear") && shape.len() == 2 => normal((1.0 / inputs as f64).sqrt()),
        _ if shape.len() >= 2 => normal((2.0 / inputs as f64).sqrt()),
        "weight" => Ok(Tensor::f_ones(shape, options)?),
        _ => Ok(Tensor::f_zeros(shape, options)?),
    }
}
