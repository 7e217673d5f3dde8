//! Where a module's tensors come from. A module asks for its tensors by name and shape as it is built; so the
//! modules themselves are the only list of the network's 626 names.

use std::cell::RefCell;
use std::collections::HashMap;

use tch::{Kind, TchError, Tensor};

/// Gives tensors by their official name.
pub(crate) trait Source {
    fn tensor(&self, entry: Entry) -> Result<Tensor, TchError>;
}

/// One entry of the state dict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The official name, such as `xception_rgb.model.block1.rep.0.conv1.weight`.
    pub name: String,
    /// The shape that this architecture needs.
    pub shape: Vec<i64>,
    /// What the entry is for.
    pub role: Role,
}

/// What an entry of the state dict is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Learned.
    Parameter,
    /// A running mean or variance: floats that training updates without gradients.
    Statistic,
    /// Counts the batches that a normalisation has seen; int64, without effect on the output.
    Counter,
    /// A fixed SRM filter: in the checkpoint, but never learned.
    Filter,
}

/// A place in the tree of names.
pub(crate) struct Scope<'a> {
    source: &'a dyn Source,
    path: String,
}

impl<'a> Scope<'a> {
    pub(crate) fn root(source: &'a dyn Source) -> Self {
        Scope { source, path: String::new() }
    }

    /// The place `name` below this one; `name` may hold dots.
    pub(crate) fn at(&self, name: &str) -> Scope<'a> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Scope { source: self.source, path }
    }

    pub(crate) fn parameter(&self, name: &str, shape: &[i64]) -> Result<Tensor, TchError> {
        self.tensor(name, shape, Role::Parameter)
    }

    pub(crate) fn tensor(&self, name: &str, shape: &[i64], role: Role) -> Result<Tensor, TchError> {
        self.source.tensor(Entry { name: self.at(name).path, shape: shape.to_vec(), role })
    }
}

impl Entry {
    /// The element type in memory.
    pub fn kind(&self) -> Kind {
        if self.role == Role::Counter { Kind::Int64 } else { Kind::Float }
    }
}

impl Entry {
    /// Where nearly all arithmetic is: convolutions but those on pixels, and cross attention. The image's levels and
    /// what the SRM filters make of them are finer than bf16.
    fn is_heavy(&self) -> bool {
        match self.role {
            Role::Parameter => self.shape.len() == 4 || self.name.starts_with("dual_cma"),
            Role::Filter => !self.name.starts_with("srm_conv0") && !self.name.starts_with("srm_sa"),
            Role::Statistic | Role::Counter => false,
        }
    }
}

/// Writes down what is asked for and gives undefined tensors.
#[derive(Default)]
pub(crate) struct Recorder(pub(crate) RefCell<Vec<Entry>>);

impl Source for Recorder {
    fn tensor(&self, entry: Entry) -> Result<Tensor, TchError> {
        self.0.borrow_mut().push(entry);
        Ok(Tensor::new())
    }
}

/// Tensors by name, as tch's `VarStore::variables` gives them, the heavy ones rounded to `kind`; a counter, which a
/// `VarStore` does not hold, is made of zeros.
pub(crate) struct Rounded {
    pub(crate) variables: HashMap<String, Tensor>,
    pub(crate) kind: Kind,
}

impl Source for Rounded {
    fn tensor(&self, entry: Entry) -> Result<Tensor, TchError> {
        match self.variables.get(&entry.name) {
            Some(tensor) if entry.is_heavy() => tensor.f_to_kind(self.kind),
            Some(tensor) => Ok(tensor.shallow_clone()),
            None if entry.role == Role::Counter => {
                Tensor::f_zeros(&entry.shape, (Kind::Int64, tch::Device::Cpu))
            }
            None => Err(TchError::Convert(format!("no tensor named {}", entry.name))),
        }
    }
}
