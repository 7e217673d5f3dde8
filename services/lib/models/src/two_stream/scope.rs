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

/// Writes down what is asked for and gives undefined tensors.
#[derive(Default)]
pub(crate) struct Recorder(pub(crate) RefCell<Vec<Entry>>);

impl Source for Recorder {
    fn tensor(&self, entry: Entry) -> Result<Tensor, TchError> {
        self.0.borrow_mut().push(entry);
        Ok(Tensor::new())
    }
}

/// Tensors by name, as tch's `VarStore::variables` gives them; what is missing there is made of zeros if it is
/// a counter (a `VarStore` holds floats only) and an error otherwise.
impl Source for HashMap<String, Tensor> {
    fn tensor(&self, entry: Entry) -> Result<Tensor, TchError> {
        match self.get(&entry.name) {
            Some(tensor) => Ok(tensor.shallow_clone()),
            None if entry.role == Role::Counter => {
                Tensor::f_zeros(&entry.shape, (Kind::Int64, tch::Device::Cpu))
            }
            None => Err(TchError::Convert(format!("no tensor named {}", entry.name))),
        }
    }
}
