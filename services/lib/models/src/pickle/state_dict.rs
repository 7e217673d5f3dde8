//! Finding the tensors in what a training script saved.

use std::collections::BTreeMap;

use super::Checkpoint;
use super::error::PickleError;
use super::value::{TensorView, Value};

/// Under what names training scripts nest a state dict, in the order in which they are tried.
const NESTS: [&str; 8] =
    ["state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params"];

impl Checkpoint {
    /// The tensors by name: of the object itself, or of a dict nested in it under a usual name. A dict that holds
    /// any tensor must hold nothing else.
    pub fn state_dict(&self) -> Result<BTreeMap<String, TensorView>, PickleError> {
        let Value::Dict(entries) = &self.root else {
            return Err(PickleError::NoStateDict(format!("the checkpoint is {}", describe(&self.root))));
        };
        let Some(entries) = find(entries, 0) else {
            let keys: Vec<String> = entries.iter().take(20).map(|(key, _)| name(key)).collect();
            return Err(PickleError::NoStateDict(format!("the checkpoint holds {}", keys.join(", "))));
        };
        let mut tensors = BTreeMap::new();
        let mut others = Vec::new();
        for (key, value) in entries {
            match (key, value) {
                (Value::Text(key), Value::Tensor(tensor)) => {
                    tensors.insert(key.to_string(), tensor.clone());
                }
                _ => others.push(format!("{} is {}", name(key), describe(value))),
            }
        }
        if !others.is_empty() {
            return Err(PickleError::NoStateDict(format!("beside tensors, {}", others.join(", "))));
        }
        Ok(tensors)
    }
}

type Entries = [(Value, Value)];

/// Three levels are enough for every script that was seen (`{"model": {"state_dict": …}}`).
fn find(entries: &Entries, depth: usize) -> Option<&Entries> {
    if entries.iter().any(|(_, value)| matches!(value, Value::Tensor(_))) {
        return Some(entries);
    }
    if depth == 3 {
        return None;
    }
    let nested = |wanted: &str| {
        entries.iter().rev().find_map(|(key, value)| match (key, value) {
            (Value::Text(key), Value::Dict(inner)) if &**key == wanted => Some(inner),
            _ => None,
        })
    };
    NESTS.iter().find_map(|wanted| find(nested(wanted)?, depth + 1))
}

fn name(key: &Value) -> String {
    match key {
        Value::Text(key) => key.to_string(),
        Value::Int(key) => key.to_string(),
        other => describe(other),
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::None => "None".to_owned(),
        Value::Bool(_) => "a truth value".to_owned(),
        Value::Int(_) | Value::Float(_) => "a number".to_owned(),
        Value::Text(_) | Value::Bytes(_) => "text".to_owned(),
        Value::Tuple(_) | Value::List(_) => "a list".to_owned(),
        Value::Dict(_) => "a dict".to_owned(),
        Value::Tensor(_) => "a tensor".to_owned(),
        Value::Opaque(name) => name.to_string(),
    }
}
