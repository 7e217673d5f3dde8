//! The network's tensors by official name, checked: the only thing a network is built from.

use std::collections::BTreeMap;
use std::fmt;

use tch::{Device, Kind, TchError, Tensor};

use super::architecture::Architecture;
use super::network;
use super::scope::{Entry, Role, Source};

/// Every entry of the official state dict for one architecture: names, shapes and kinds checked, all finite,
/// on the CPU, floats as f32 (contiguous), counters as int64.
pub struct TwoStreamWeights {
    architecture: Architecture,
    tensors: BTreeMap<String, Tensor>,
}

/// Why tensors are not the weights of a network.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The names, shapes or kinds are not those of the architecture; every one of them is listed.
    #[error("weights do not fit the architecture: {0}")]
    Mismatch(WeightMismatch),
    /// Values are NaN or infinite.
    #[error("weights hold NaN or infinity: {}", .names.join(", "))]
    NotFinite {
        /// The entries that hold them.
        names: Vec<String>,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {}", crate::device::brief(.0))]
    Torch(#[from] TchError),
}

/// All keys that do not fit, by what is wrong with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightMismatch {
    /// Needed, and not there.
    pub missing: Vec<String>,
    /// There, and not part of the network.
    pub unexpected: Vec<String>,
    /// There, with another shape or kind: name, what is needed, what was found.
    pub misshapen: Vec<(String, String, String)>,
}

impl TwoStreamWeights {
    /// Takes tensors under their official names, of any float type and device. Each entry of the architecture must
    /// be there with its shape, and nothing else.
    pub fn from_tensors(
        mut tensors: BTreeMap<String, Tensor>,
        architecture: Architecture,
    ) -> Result<Self, WeightsError> {
        let mut mismatch = WeightMismatch::default();
        let mut not_finite = Vec::new();
        let mut checked = BTreeMap::new();
        for entry in entries(architecture) {
            let Some(tensor) = tensors.remove(&entry.name) else {
                mismatch.missing.push(entry.name);
                continue;
            };
            if !fits(&tensor, &entry) {
                let found = format!("{:?} {:?}", tensor.size(), tensor.kind());
                let needed = format!("{:?} {:?}", entry.shape, entry.kind());
                mismatch.misshapen.push((entry.name, needed, found));
                continue;
            }
            let tensor = at_home(&tensor, entry.kind())?;
            if entry.role != Role::Counter && !is_finite(&tensor)? {
                not_finite.push(entry.name.clone());
            }
            checked.insert(entry.name, tensor);
        }
        mismatch.unexpected = tensors.into_keys().collect();
        if mismatch != WeightMismatch::default() {
            return Err(WeightsError::Mismatch(mismatch));
        }
        if !not_finite.is_empty() {
            return Err(WeightsError::NotFinite { names: not_finite });
        }
        Ok(Self { architecture, tensors: checked })
    }

    /// The architecture they were checked against.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The tensors by official name, in the order of the names.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// How many values the network learns or keeps fixed as filters (running statistics and counters left out).
    pub fn parameter_count(&self) -> i64 {
        entries(self.architecture)
            .iter()
            .filter(|entry| matches!(entry.role, Role::Parameter | Role::Filter))
            .map(|entry| entry.shape.iter().product::<i64>())
            .sum()
    }
}

/// Every entry of the state dict, in the order in which the modules are built.
pub fn entries(architecture: Architecture) -> Vec<Entry> {
    network::entries(architecture)
}

impl fmt::Debug for TwoStreamWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TwoStreamWeights({}, {} entries)", self.architecture, self.tensors.len())
    }
}

impl fmt::Display for WeightMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.missing.is_empty() {
            parts.push(format!("{} missing: {}", self.missing.len(), self.missing.join(", ")));
        }
        if !self.unexpected.is_empty() {
            parts.push(format!("{} unexpected: {}", self.unexpected.len(), self.unexpected.join(", ")));
        }
        if !self.misshapen.is_empty() {
            let each: Vec<String> = self
                .misshapen
                .iter()
                .map(|(name, needed, found)| format!("{name} is {found}, needs {needed}"))
                .collect();
            parts.push(format!("{} misshapen: {}", each.len(), each.join(", ")));
        }
        f.write_str(&parts.join("; "))
    }
}

impl Source for TwoStreamWeights {
    fn tensor(&self, entry: Entry) -> Result<Tensor, TchError> {
        let known = self.tensors.get(&entry.name);
        known.map(Tensor::shallow_clone).ok_or_else(|| TchError::Convert(format!("no tensor {}", entry.name)))
    }
}

fn fits(tensor: &Tensor, entry: &Entry) -> bool {
    let kind_fits = match entry.role {
        Role::Counter => tensor.kind() == Kind::Int64,
        _ => matches!(tensor.kind(), Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Double),
    };
    tensor.defined() && kind_fits && tensor.size() == entry.shape
}

fn at_home(tensor: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
    tensor.f_detach()?.f_to_device_(Device::Cpu, kind, false, false)?.f_contiguous()
}

/// One pass and no mask: the sum of `0·x` is zero exactly when every value is finite.
fn is_finite(tensor: &Tensor) -> Result<bool, TchError> {
    f64::try_from(tensor.f_mul_scalar(0.0)?.f_sum(Kind::Float)?).map(|sum| sum == 0.0)
}
