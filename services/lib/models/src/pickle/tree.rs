//! From the arena to a tree.

use std::sync::Arc;

use super::Limits;
use super::error::PickleError;
use super::globals::Global;
use super::machine::{Object, Pickle, Ref};
use super::value::{TensorView, Value};

impl Pickle {
    /// The tree under the root, its tensors over `storages` (in the table's order). A pickle may refer to one
    /// object many times or to itself; depth and nodes are therefore counted again.
    pub(super) fn into_value(self, storages: &[Arc<[u8]>], limits: Limits) -> Result<Value, PickleError> {
        let mut nodes = 0;
        self.value(self.root, &mut Walk { storages, limits, nodes: &mut nodes }, 0)
    }

    fn value(&self, reference: Ref, walk: &mut Walk<'_>, depth: usize) -> Result<Value, PickleError> {
        *walk.nodes += 1;
        if *walk.nodes > walk.limits.objects {
            return Err(PickleError::TooLarge { what: "objects", limit: walk.limits.objects as u64 });
        }
        if depth > walk.limits.depth {
            return Err(PickleError::TooLarge { what: "levels of nesting", limit: walk.limits.depth as u64 });
        }
        let all = |items: &[Ref], walk: &mut Walk<'_>| -> Result<Vec<Value>, PickleError> {
            items.iter().map(|&item| self.value(item, walk, depth + 1)).collect()
        };
        Ok(match &self.objects[reference as usize] {
            Object::None => Value::None,
            Object::Bool(value) => Value::Bool(*value),
            Object::Int(value) => Value::Int(*value),
            Object::Float(value) => Value::Float(*value),
            Object::Text(text) => Value::Text(text.clone()),
            Object::Bytes(bytes) => Value::Bytes(bytes.clone()),
            Object::Tuple(items) => Value::Tuple(all(items, walk)?),
            Object::List(items) => Value::List(all(items, walk)?),
            Object::Dict(entries) => {
                let mut dict = Vec::new();
                for &(key, value) in entries {
                    dict.push((self.value(key, walk, depth + 1)?, self.value(value, walk, depth + 1)?));
                }
                Value::Dict(dict)
            }
            Object::Tensor { storage, element, layout } => Value::Tensor(TensorView {
                bytes: walk.storages[*storage].clone(),
                element: *element,
                layout: layout.clone(),
            }),
            Object::Global(Global::Inert(name)) | Object::Opaque(name) => Value::Opaque(name.clone()),
            Object::Global(other) => Value::Opaque(format!("{other:?}").into()),
            Object::Storage { .. } => Value::Opaque("storage".into()),
        })
    }
}

struct Walk<'a> {
    storages: &'a [Arc<[u8]>],
    limits: Limits,
    nodes: &'a mut usize,
}
