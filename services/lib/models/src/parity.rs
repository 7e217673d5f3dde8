//! Our network against the published code's outputs, tensor by tensor.
//!
//! A parity file holds inputs and the published code's outputs for weights that its salt stands for. Every tensor is
//! compared through the network as published and through its inference form.

use std::io::Write;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, TchError, Tensor};

use crate::device;
use crate::shim::InferenceMode;
use crate::tensor_file::{FILE_BYTES_MAX, TensorFile, TensorFileError};
use crate::two_stream::{
    Architecture, Fusion, Network, NetworkOutput, Phase, TwoStreamWeights, WeightsError,
};

/// f32: every tensor within this share of its largest magnitude.
const BOUND_F32: f64 = 1e-4;
/// bf16: the probability within this of the published one. (Inner tensors are shown, not bounded.)
const BOUND_BF16_PROBABILITY: f64 = 0.01;
/// Values of a stage that a parity file holds for each image.
const SAMPLES: i64 = 64;

/// Why a comparison did not take place.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// The folder cannot be listed.
    #[error("{}: {source}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is nothing to compare with.
    #[error("no *.safetensors in {}", .0.display())]
    Empty(PathBuf),
    /// A parity file cannot be read.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// A parity file lacks something.
    #[error("{}: {why}", .path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        why: String,
    },
    /// The seeded weights were not accepted.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// libtorch refused an operation.
    #[error("libtorch: {}", device::brief(.0))]
    Torch(#[from] TchError),
    /// The report cannot be written.
    #[error("cannot write the report: {0}")]
    Report(#[from] std::io::Error),
}

/// Compares every `*.safetensors` in `folder` and writes a line per tensor with its largest error relative to the tensor's
/// largest magnitude. True if all are within bounds.
pub fn run(folder: &Path, report: &mut dyn Write) -> Result<bool, ParityError> {
    let mut within = true;
    for path in parity_files(folder)? {
        for line in compare_file(&path)? {
            writeln!(report, "{line}")?;
            within &= line.is_within();
        }
    }
    if !device::cpu_has_bf16() {
        writeln!(report, "bf16 skipped: this CPU has neither AVX512-BF16 nor AMX")?;
    }
    Ok(within)
}

/// One compared tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The parity file's name without its ending.
    pub file: String,
    /// `plain`, `inference` or `inference bf16`.
    pub path: &'static str,
    /// The tensor in the file.
    pub tensor: String,
    /// Largest difference over largest magnitude.
    pub error: f64,
    /// What the error must not exceed; `None` where it is only shown.
    pub bound: Option<f64>,
}

impl Compared {
    /// Whether the error is in bounds. NaN never is.
    pub fn is_within(&self) -> bool {
        self.bound.is_none_or(|bound| self.error <= bound)
    }
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Compared { file, path, tensor, error, bound } = self;
        let verdict = match bound {
            None => "shown only".to_owned(),
            Some(bound) if self.is_within() => format!("ok ≤ {bound:.0e}"),
            Some(bound) => format!("OUT OF BOUNDS > {bound:.0e}"),
        };
        write!(f, "{file:<24} {path:<14} {tensor:<28} {error:.2e}  {verdict}")
    }
}

/// Every tensor of one parity file, on every path that this CPU has.
pub fn compare_file(path: &Path) -> Result<Vec<Compared>, ParityError> {
    let incomplete = |why: String| ParityError::Incomplete { path: path.to_owned(), why };
    let expected = TensorFile::read(path, FILE_BYTES_MAX)?;
    let text = |key: &str| {
        expected.metadata.get(key).ok_or_else(|| incomplete(format!("no {key:?} in its metadata")))
    };
    let fusion = Fusion::from_name(text("fusion")?)
        .ok_or_else(|| incomplete(format!("unknown fusion {:?}", expected.metadata["fusion"])))?;
    let input = expected.tensors.get("input").ok_or_else(|| incomplete("no tensor \"input\"".to_owned()))?;

    let weights = TwoStreamWeights::seeded(Architecture::FULL, text("salt")?)?;
    let plain = Network::new(&weights, fusion)?;
    let mut paths = vec![("plain", observe(&plain, input)?)];
    paths.push(("inference", observe(&plain.prepare(Device::Cpu, Kind::Float)?, input)?));
    if device::cpu_has_bf16() {
        paths.push(("inference bf16", observe(&plain.prepare(Device::Cpu, Kind::BFloat16)?, input)?));
    }

    let file = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut lines = Vec::new();
    for (path, found) in &paths {
        for (tensor, expected) in expected.tensors.iter().filter(|(name, _)| *name != "input") {
            let found = found
                .get(tensor)
                .ok_or_else(|| incomplete(format!("tensor {tensor:?} is none of the network's")))?;
            let (error, bound) = match *path {
                "inference bf16" if tensor == "prob_class1" => {
                    (largest(&found.f_sub(expected)?)?, Some(BOUND_BF16_PROBABILITY))
                }
                "inference bf16" => (relative_error(found, expected)?, None),
                _ => (relative_error(found, expected)?, Some(BOUND_F32)),
            };
            lines.push(Compared { file: file.clone(), path, tensor: tensor.clone(), error, bound });
        }
    }
    Ok(lines)
}

/// Largest difference over the largest magnitude of what was expected.
pub fn relative_error(found: &Tensor, expected: &Tensor) -> Result<f64, TchError> {
    if found.size() != expected.size() {
        return Ok(f64::INFINITY);
    }
    Ok(largest(&found.f_sub(expected)?)? / largest(expected)?)
}

fn largest(tensor: &Tensor) -> Result<f64, TchError> {
    f64::try_from(tensor.f_abs()?.f_max()?)
}

type Named = std::collections::BTreeMap<String, Tensor>;

/// One forward pass, as the tensors of a parity file.
fn observe(network: &Network, input: &Tensor) -> Result<Named, TchError> {
    let _inference = InferenceMode::enter();
    let mut named = Named::new();
    let output = network.forward_observed(input, Phase::Evaluate, &mut |stage, tensor| {
        let flat = tensor.f_to_kind(Kind::Float)?.f_flatten(1, -1)?;
        let length = flat.size()[1];
        let places = Tensor::f_linspace(0, length - 1, SAMPLES, (Kind::Float, Device::Cpu))?;
        let samples = flat.f_index_select(1, &places.f_to_kind(Kind::Int64)?)?;
        let mean = |t: &Tensor| t.f_mean_dim([1i64].as_slice(), false, Kind::Float);
        named.insert(format!("stage.{stage}.mean"), mean(&flat)?);
        named.insert(format!("stage.{stage}.meansq"), mean(&flat.f_square()?)?);
        named.insert(format!("stage.{stage}.samples"), samples);
        Ok(())
    })?;
    let NetworkOutput { logits, embedding, attention_map } = output;
    named.insert("prob_class1".into(), logits.f_softmax(1, Kind::Float)?.f_select(1, 1)?);
    named.insert("logits".into(), logits);
    named.insert("embedding".into(), embedding);
    named.insert("attention_map".into(), attention_map);
    Ok(named)
}

fn parity_files(folder: &Path) -> Result<Vec<PathBuf>, ParityError> {
    let unreadable = |source| ParityError::Folder { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|ending| ending == "safetensors") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() { Err(ParityError::Empty(folder.to_owned())) } else { Ok(files) }
}
