//! The pickle machine: opcodes in, an arena of plain objects out. An opcode adds at most one object, and objects
//! refer to each other by index, so that memory is in proportion to the bytes read, however often the pickle
//! shares a value with itself.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use super::Limits;
use super::error::PickleError;
use super::globals::{self, Global};
use super::input::Input;
use super::opcodes as op;
use super::storage::{Declared, StorageTable};
use super::value::{ElementType, Layout};

/// One pickle, read: an arena with a root.
#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) objects: Vec<Object>,
    pub(super) root: Ref,
    /// The storages that the objects mention.
    pub(super) storages: StorageTable,
}

/// An index into the arena.
pub(super) type Ref = u32;

/// A plain object; what it holds lies elsewhere in the arena.
#[derive(Debug)]
pub(super) enum Object {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<str>),
    Bytes(Arc<[u8]>),
    Tuple(Vec<Ref>),
    List(Vec<Ref>),
    Dict(Vec<(Ref, Ref)>),
    Global(Global),
    Storage { index: usize, element: ElementType, start: usize, elements: usize },
    Tensor { storage: usize, element: ElementType, layout: Layout },
    Opaque(Arc<str>),
}

/// Reads one pickle up to and including its `STOP`.
pub(super) fn read_pickle(source: impl Read, limits: Limits) -> Result<Pickle, PickleError> {
    let mut machine = Machine {
        input: Input::new(source, limits.pickle_bytes),
        limits,
        cost: 0,
        objects: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        storages: StorageTable::default(),
    };
    while machine.step()? {}
    let root = machine.pop()?;
    Ok(Pickle { objects: machine.objects, root, storages: machine.storages })
}

struct Machine<R> {
    input: Input<R>,
    limits: Limits,
    cost: usize,
    objects: Vec<Object>,
    stack: Vec<Ref>,
    marks: Vec<usize>,
    memo: HashMap<u32, Ref>,
    storages: StorageTable,
}

impl<R: Read> Machine<R> {
    /// Runs one opcode; false after `STOP`.
    fn step(&mut self) -> Result<bool, PickleError> {
        let opcode = self.input.byte()?;
        match opcode {
            op::STOP => return Ok(false),
            op::PROTO => {
                let version = self.input.byte()?;
                if !(2..=5).contains(&version) {
                    return Err(PickleError::Unsupported(format!("pickle protocol {version}")));
                }
            }
            op::FRAME => {
                self.input.array::<8>()?;
            }
            op::MARK => {
                self.charge(1)?;
                self.marks.push(self.stack.len());
            }
            op::POP => {
                self.pop()?;
            }
            op::POP_MARK => {
                self.pop_to_mark()?;
            }
            op::DUP => {
                let top = self.top()?;
                self.stack.push(top);
            }
            op::NONE => self.push(Object::None)?,
            op::NEWTRUE => self.push(Object::Bool(true))?,
            op::NEWFALSE => self.push(Object::Bool(false))?,
            op::BININT | op::BININT1 | op::BININT2 | op::LONG1 | op::LONG4 | op::BINFLOAT => {
                self.number(opcode)?;
            }
            op::BINUNICODE
            | op::SHORT_BINUNICODE
            | op::BINUNICODE8
            | op::BINSTRING
            | op::SHORT_BINSTRING
            | op::BINBYTES
            | op::SHORT_BINBYTES
            | op::BINBYTES8 => self.string(opcode)?,
            op::BINPUT | op::LONG_BINPUT | op::MEMOIZE | op::BINGET | op::LONG_BINGET => self.memo(opcode)?,
            op::GLOBAL | op::STACK_GLOBAL => self.global(opcode)?,
            op::REDUCE | op::NEWOBJ => self.call()?,
            op::BINPERSID => self.persistent()?,
            op::BUILD => self.build()?,
            op::EMPTY_TUPLE => self.push(Object::Tuple(Vec::new()))?,
            op::TUPLE1 | op::TUPLE2 | op::TUPLE3 => {
                let items = self.pop_many(usize::from(opcode - op::TUPLE1) + 1)?;
                self.push(Object::Tuple(items))?;
            }
            op::TUPLE => {
                let items = self.pop_to_mark()?;
                self.push(Object::Tuple(items))?;
            }
            op::EMPTY_LIST | op::EMPTY_SET => self.push(Object::List(Vec::new()))?,
            op::LIST | op::FROZENSET => {
                let items = self.pop_to_mark()?;
                self.push(Object::List(items))?;
            }
            op::APPEND => {
                let items = self.pop_many(1)?;
                self.extend_list(items)?;
            }
            op::APPENDS | op::ADDITEMS => {
                let items = self.pop_to_mark()?;
                self.extend_list(items)?;
            }
            op::EMPTY_DICT => self.push(Object::Dict(Vec::new()))?,
            op::DICT => {
                let items = self.pop_to_mark()?;
                self.push(Object::Dict(Vec::new()))?;
                self.extend_dict(&items)?;
            }
            op::SETITEM => {
                let items = self.pop_many(2)?;
                self.extend_dict(&items)?;
            }
            op::SETITEMS => {
                let items = self.pop_to_mark()?;
                self.extend_dict(&items)?;
            }
            _ => return Err(PickleError::Opcode { opcode, at: self.input.at - 1 }),
        }
        Ok(true)
    }

    fn number(&mut self, opcode: u8) -> Result<(), PickleError> {
        let object = match opcode {
            op::BININT => Object::Int(i32::from_le_bytes(self.input.array()?).into()),
            op::BININT1 => Object::Int(self.input.byte()?.into()),
            op::BININT2 => Object::Int(u16::from_le_bytes(self.input.array()?).into()),
            op::BINFLOAT => Object::Float(f64::from_be_bytes(self.input.array()?)),
            op::LONG1 | op::LONG4 => {
                let length = if opcode == op::LONG1 {
                    self.input.byte()?.into()
                } else {
                    u32::from_le_bytes(self.input.array()?)
                };
                if length > 16 {
                    return Err(self.malformed(format!("a number of {length} bytes")));
                }
                let bytes = self.input.bytes(u64::from(length))?;
                let fill = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
                let mut wide = [fill; 16];
                wide[..bytes.len()].copy_from_slice(&bytes);
                Object::Int(i128::from_le_bytes(wide))
            }
            _ => return Err(PickleError::Opcode { opcode, at: self.input.at - 1 }),
        };
        self.push(object)
    }

    fn string(&mut self, opcode: u8) -> Result<(), PickleError> {
        let length = match opcode {
            op::SHORT_BINUNICODE | op::SHORT_BINSTRING | op::SHORT_BINBYTES => self.input.byte()?.into(),
            op::BINUNICODE | op::BINSTRING | op::BINBYTES => u32::from_le_bytes(self.input.array()?).into(),
            _ => u64::from_le_bytes(self.input.array()?),
        };
        let bytes = self.input.bytes(length)?;
        let is_bytes = matches!(opcode, op::SHORT_BINBYTES | op::BINBYTES | op::BINBYTES8);
        let object = if is_bytes {
            Object::Bytes(bytes.into())
        } else {
            let text = String::from_utf8(bytes).map_err(|_| self.malformed("a string that is not UTF-8"))?;
            Object::Text(text.into())
        };
        self.push(object)
    }

    fn memo(&mut self, opcode: u8) -> Result<(), PickleError> {
        let slot = match opcode {
            op::BINPUT | op::BINGET => self.input.byte()?.into(),
            op::MEMOIZE => self.memo.len() as u32,
            _ => u32::from_le_bytes(self.input.array()?),
        };
        if matches!(opcode, op::BINGET | op::LONG_BINGET) {
            let known = self.memo.get(&slot).copied();
            let known = known.ok_or_else(|| self.malformed(format!("nothing memorised under {slot}")))?;
            self.stack.push(known);
        } else {
            self.charge(1)?;
            let top = self.top()?;
            self.memo.insert(slot, top);
        }
        Ok(())
    }

    fn global(&mut self, opcode: u8) -> Result<(), PickleError> {
        let at = self.input.at;
        let (module, name) = if opcode == op::GLOBAL {
            (self.input.line()?, self.input.line()?)
        } else {
            let names = self.pop_many(2)?;
            (self.text(names[0])?.to_string(), self.text(names[1])?.to_string())
        };
        let known = globals::look_up(&module, &name);
        let global = known.ok_or_else(|| PickleError::Forbidden { name: format!("{module}.{name}"), at })?;
        self.push(Object::Global(global))
    }

    /// `REDUCE` and `NEWOBJ`: a global on the list, "called" with a tuple.
    fn call(&mut self) -> Result<(), PickleError> {
        let operands = self.pop_many(2)?;
        let Object::Global(global) = &self.objects[operands[0] as usize] else {
            return Err(self.malformed("a call of something that is not a global"));
        };
        let global = global.clone();
        let Object::Tuple(arguments) = &self.objects[operands[1] as usize] else {
            return Err(self.malformed("call arguments that are not a tuple"));
        };
        // No call on the list has more; a longer tuple would be copied here again and again.
        if arguments.len() > 8 {
            return Err(self.malformed(format!("a call with {} arguments", arguments.len())));
        }
        let arguments = arguments.clone();
        let object = match global {
            Global::Mapping => Object::Dict(self.entries_of(&arguments)?),
            Global::Set => Object::List(self.items_of(&arguments)?),
            Global::Size => Object::Tuple(self.items_of(&arguments)?),
            Global::RebuildTensor => self.tensor(&arguments)?,
            Global::RebuildParameter => {
                let first = arguments.first().map(|&first| &self.objects[first as usize]);
                let Some(Object::Tensor { storage, element, layout }) = first else {
                    return Err(self.malformed("a parameter without a tensor"));
                };
                Object::Tensor { storage: *storage, element: *element, layout: layout.clone() }
            }
            Global::Storage(_) => return Err(self.malformed("a storage outside a persistent id")),
            Global::Inert(name) => Object::Opaque(name),
        };
        self.push(object)
    }

    /// The items that a collection's constructor was given. The copy is charged, since one long list could be
    /// copied by many calls.
    fn items_of(&mut self, arguments: &[Ref]) -> Result<Vec<Ref>, PickleError> {
        let items = match arguments.first().map(|&first| &self.objects[first as usize]) {
            Some(Object::List(items) | Object::Tuple(items)) => items.as_slice(),
            // A default dict's factory, a counter's dict: of no use here.
            _ => return Ok(Vec::new()),
        };
        self.cost += items.len();
        if self.cost > self.limits.objects {
            return Err(self.too_many_objects());
        }
        Ok(items.to_vec())
    }

    fn entries_of(&mut self, arguments: &[Ref]) -> Result<Vec<(Ref, Ref)>, PickleError> {
        let pairs = self.items_of(arguments)?;
        let entry = |&pair: &Ref| match &self.objects[pair as usize] {
            Object::Tuple(pair) | Object::List(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
            _ => Err(self.malformed("a dict made of something that is not pairs")),
        };
        pairs.iter().map(entry).collect()
    }

    /// `(storage, offset, shape, strides, …)`; what follows (gradients, hooks, metadata) is of no use here.
    fn tensor(&self, arguments: &[Ref]) -> Result<Object, PickleError> {
        let &[storage, offset, shape, strides, ..] = arguments else {
            return Err(self.malformed("a tensor with fewer than four arguments"));
        };
        let Object::Storage { index, element, start, elements } = self.objects[storage as usize] else {
            return Err(self.malformed("a tensor without a storage"));
        };
        let offset = self.index(offset)?;
        let (shape, strides) = (self.indices(shape)?, self.indices(strides)?);
        let mut layout =
            Layout::checked(offset, shape, strides, elements).map_err(|what| self.malformed(what))?;
        layout.offset += start;
        Ok(Object::Tensor { storage: index, element, layout })
    }

    /// `('storage', type, key, location, elements[, view])`.
    fn persistent(&mut self) -> Result<(), PickleError> {
        let id = self.pop()?;
        let Object::Tuple(parts) = &self.objects[id as usize] else {
            return Err(self.malformed("a persistent id that is not a tuple"));
        };
        let kind = parts.first().map(|&kind| self.text(kind)).transpose()?;
        if kind.as_deref() != Some("storage") {
            let name = format!("persistent object {:?}", kind.as_deref().unwrap_or("()"));
            return Err(PickleError::Forbidden { name, at: self.input.at });
        }
        let (class, key, elements, view) = match *parts.as_slice() {
            [_, class, key, _, elements] => (class, key, elements, None),
            [_, class, key, _, elements, view] => (class, key, elements, Some(view)),
            _ => return Err(self.malformed("a storage with too few or too many parts")),
        };
        let Object::Global(Global::Storage(element)) = self.objects[class as usize] else {
            return Err(self.malformed("a storage of unknown type"));
        };
        let key = match &self.objects[key as usize] {
            Object::Text(key) => key.clone(),
            Object::Int(key) => key.to_string().into(),
            _ => return Err(self.malformed("a storage whose key is not text")),
        };
        let elements = self.index(elements)?;
        let bytes = (elements as u64).checked_mul(element.size() as u64);
        let bytes = bytes.ok_or_else(|| self.malformed(format!("a storage of {elements} elements")))?;
        let (start, count) = self.view(view, elements)?;
        let index = self.storages.declare(Declared { key, element, bytes })?;
        self.push(Object::Storage { index, element, start, elements: count })
    }

    /// The part of a storage that a legacy checkpoint's view metadata names: `None` or `(key, offset, elements)`.
    fn view(&self, view: Option<Ref>, elements: usize) -> Result<(usize, usize), PickleError> {
        match view.map(|view| &self.objects[view as usize]) {
            None | Some(Object::None) => Ok((0, elements)),
            Some(Object::Tuple(parts)) if parts.len() == 3 => {
                let (start, count) = (self.index(parts[1])?, self.index(parts[2])?);
                let inside = start.checked_add(count).is_some_and(|end| end <= elements);
                if inside { Ok((start, count)) } else { Err(self.malformed("a view outside its storage")) }
            }
            Some(_) => Err(self.malformed("view metadata that is no tuple of three")),
        }
    }

    /// Attributes set on an object: `_metadata` of a state dict, say. Nothing here needs them.
    fn build(&mut self) -> Result<(), PickleError> {
        self.pop()?;
        let top = self.top()?;
        match &self.objects[top as usize] {
            Object::Dict(_) | Object::Tensor { .. } | Object::Opaque(_) => Ok(()),
            _ => Err(self.malformed("attributes set on something that has none")),
        }
    }

    fn extend_list(&mut self, items: Vec<Ref>) -> Result<(), PickleError> {
        let top = self.top()?;
        match &mut self.objects[top as usize] {
            Object::List(list) => list.extend(items),
            Object::Opaque(_) => {}
            _ => return Err(self.malformed("items appended to something that is not a list")),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Ref]) -> Result<(), PickleError> {
        let top = self.top()?;
        if !items.len().is_multiple_of(2) {
            return Err(self.malformed("a key without a value"));
        }
        match &mut self.objects[top as usize] {
            Object::Dict(entries) => entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            Object::Opaque(_) => {}
            _ => return Err(self.malformed("entries set on something that is not a dict")),
        }
        Ok(())
    }

    fn push(&mut self, object: Object) -> Result<(), PickleError> {
        self.charge(1)?;
        self.stack.push(self.objects.len() as Ref);
        self.objects.push(object);
        Ok(())
    }

    /// Counts what takes memory: objects, marks, memo slots, copied items.
    fn charge(&mut self, objects: usize) -> Result<(), PickleError> {
        self.cost += objects;
        if self.cost > self.limits.objects { Err(self.too_many_objects()) } else { Ok(()) }
    }

    fn too_many_objects(&self) -> PickleError {
        PickleError::TooLarge { what: "objects", limit: self.limits.objects as u64 }
    }

    fn top(&self) -> Result<Ref, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = if self.stack.len() > floor { self.stack.last().copied() } else { None };
        top.ok_or_else(|| self.malformed("an empty stack"))
    }

    fn pop(&mut self) -> Result<Ref, PickleError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Ref>, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() < floor + count {
            return Err(self.malformed("an empty stack"));
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Ref>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.malformed("no mark on the stack"))?;
        Ok(self.stack.split_off(mark))
    }

    fn text(&self, reference: Ref) -> Result<Arc<str>, PickleError> {
        match &self.objects[reference as usize] {
            Object::Text(text) => Ok(text.clone()),
            _ => Err(self.malformed("something else where text is needed")),
        }
    }

    fn index(&self, reference: Ref) -> Result<usize, PickleError> {
        match &self.objects[reference as usize] {
            Object::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
        .ok_or_else(|| self.malformed("something else where a size is needed"))
    }

    fn indices(&self, reference: Ref) -> Result<Vec<usize>, PickleError> {
        match &self.objects[reference as usize] {
            Object::Tuple(items) | Object::List(items) if items.len() <= 8 => {
                items.iter().map(|&item| self.index(item)).collect()
            }
            _ => Err(self.malformed("a shape that is no tuple of at most eight sizes")),
        }
    }

    fn malformed(&self, what: impl Into<String>) -> PickleError {
        self.input.malformed(what)
    }
}
