//! Writes checkpoints as `torch.save` does, in both formats, for tests: hostile ones too.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// What is saved.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    None,
    Bool(bool),
    Int(i32),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Tuple(Vec<Node>),
    Dict(Vec<(Node, Node)>),
    /// `collections.OrderedDict` with `_metadata`, as `Module.state_dict()` gives it.
    StateDict(Vec<(String, Node)>),
    Tensor(Tensor),
    Parameter(Tensor),
    /// A global, called with arguments: `REDUCE`.
    Call(&'static str, &'static str, Vec<Node>),
}

/// A view of one of the file's storages.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) storage: usize,
    pub(crate) offset: i32,
    pub(crate) shape: Vec<i32>,
    pub(crate) strides: Vec<i32>,
}

/// Class of the storage, such as `FloatStorage`, bytes of one element, and the elements.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    pub(crate) class: &'static str,
    pub(crate) element_bytes: usize,
    pub(crate) bytes: Vec<u8>,
}

/// A checkpoint to be written.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    pub(crate) root: Node,
    pub(crate) storages: Vec<Storage>,
}

impl Storage {
    pub(crate) fn floats(values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { class: "FloatStorage", element_bytes: 4, bytes }
    }

    pub(crate) fn longs(values: &[i64]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { class: "LongStorage", element_bytes: 8, bytes }
    }

    fn elements(&self) -> usize {
        self.bytes.len() / self.element_bytes
    }
}

impl Tensor {
    /// The whole storage in row-major order.
    pub(crate) fn whole(storage: usize, shape: &[i64]) -> Self {
        let shape: Vec<i32> = shape.iter().map(|&side| side as i32).collect();
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        Self { storage, offset: 0, shape, strides }
    }
}

impl Saved {
    /// The zip format of PyTorch 1.6 and later.
    pub(crate) fn zip(&self, method: CompressionMethod) -> Vec<u8> {
        let mut files =
            vec![("data.pkl".to_owned(), self.pickle(false)), ("byteorder".to_owned(), b"little".to_vec())];
        for (key, storage) in self.storages.iter().enumerate() {
            files.push((format!("data/{key}"), storage.bytes.clone()));
        }
        files.push(("version".to_owned(), b"3\n".to_vec()));
        zip_of(&files, method)
    }

    /// The format before it.
    pub(crate) fn legacy(&self) -> Vec<u8> {
        let mut out = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
        out.extend_from_slice(b"\x80\x02M\xe9\x03.");
        let text = |text: &str| Node::Text(text.to_owned());
        out.extend(pickle(&Node::Dict(vec![
            (text("protocol_version"), Node::Int(1001)),
            (text("little_endian"), Node::Bool(true)),
        ])));
        out.extend(self.pickle(true));
        out.extend(pickle(&Node::List((0..self.storages.len()).map(|key| text(&key.to_string())).collect())));
        for storage in &self.storages {
            out.extend_from_slice(&(storage.elements() as u64).to_le_bytes());
            out.extend_from_slice(&storage.bytes);
        }
        out
    }

    fn pickle(&self, legacy: bool) -> Vec<u8> {
        let mut out = vec![0x80, 2];
        Pickler { storages: &self.storages, legacy, out: &mut out }.node(&self.root);
        out.push(b'.');
        out
    }
}

/// A zip archive with `files` under `archive/`.
pub(crate) fn zip_of(files: &[(String, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(format!("archive/{name}"), SimpleFileOptions::default().compression_method(method))
            .unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// One pickle without tensors.
pub(crate) fn pickle(node: &Node) -> Vec<u8> {
    Saved { root: node.clone(), storages: Vec::new() }.pickle(false)
}

struct Pickler<'a> {
    storages: &'a [Storage],
    legacy: bool,
    out: &'a mut Vec<u8>,
}

impl Pickler<'_> {
    fn node(&mut self, node: &Node) {
        match node {
            Node::None => self.out.push(b'N'),
            Node::Bool(value) => self.out.push(if *value { 0x88 } else { 0x89 }),
            Node::Int(value) => {
                self.out.push(b'J');
                self.out.extend(value.to_le_bytes());
            }
            Node::Float(value) => {
                self.out.push(b'G');
                self.out.extend(value.to_be_bytes());
            }
            Node::Text(text) => {
                self.out.push(b'X');
                self.out.extend((text.len() as u32).to_le_bytes());
                self.out.extend(text.as_bytes());
            }
            Node::List(items) => {
                self.out.extend(b"](");
                items.iter().for_each(|item| self.node(item));
                self.out.push(b'e');
            }
            Node::Tuple(items) => {
                self.out.push(b'(');
                items.iter().for_each(|item| self.node(item));
                self.out.push(b't');
            }
            Node::Dict(entries) => {
                self.out.extend(b"}(");
                self.entries(entries);
            }
            Node::StateDict(entries) => {
                self.global("collections", "OrderedDict");
                self.out.extend(b")R(");
                let entries: Vec<_> =
                    entries.iter().map(|(name, node)| (Node::Text(name.clone()), node.clone())).collect();
                self.entries(&entries);
                let metadata = Node::Call("collections", "OrderedDict", Vec::new());
                self.node(&Node::Dict(vec![(Node::Text("_metadata".to_owned()), metadata)]));
                self.out.push(b'b');
            }
            Node::Tensor(tensor) => self.tensor(tensor),
            Node::Parameter(tensor) => {
                self.global("torch._utils", "_rebuild_parameter");
                self.out.push(b'(');
                self.tensor(tensor);
                self.node(&Node::Bool(true));
                self.node(&Node::Call("collections", "OrderedDict", Vec::new()));
                self.out.extend(b"tR");
            }
            Node::Call(module, name, arguments) => {
                self.global(module, name);
                self.node(&Node::Tuple(arguments.clone()));
                self.out.push(b'R');
            }
        }
    }

    fn entries(&mut self, entries: &[(Node, Node)]) {
        for (key, value) in entries {
            self.node(key);
            self.node(value);
        }
        self.out.push(b'u');
    }

    fn tensor(&mut self, tensor: &Tensor) {
        let storage = &self.storages[tensor.storage];
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.out.extend(b"((");
        self.node(&Node::Text("storage".to_owned()));
        self.global("torch", storage.class);
        self.node(&Node::Text(tensor.storage.to_string()));
        self.node(&Node::Text("cpu".to_owned()));
        self.node(&Node::Int(storage.elements() as i32));
        if self.legacy {
            self.node(&Node::None);
        }
        self.out.extend(b"tQ");
        self.node(&Node::Int(tensor.offset));
        let tuple = |sides: &[i32]| Node::Tuple(sides.iter().map(|&side| Node::Int(side)).collect());
        self.node(&tuple(&tensor.shape));
        self.node(&tuple(&tensor.strides));
        self.node(&Node::Bool(false));
        self.node(&Node::Call("collections", "OrderedDict", Vec::new()));
        self.out.extend(b"tR");
    }

    fn global(&mut self, module: &str, name: &str) {
        self.out.extend(format!("c{module}\n{name}\n").bytes());
    }
}
