//! What comes out of a pickle.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A plain value.
#[derive(Clone, Debug)]
pub enum Value {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A float.
    Float(f64),
    /// A string.
    Text(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A list or a set.
    List(Vec<Value>),
    /// A dict of any kind, in the order of its entries; a key may occur again, and then the last one counts.
    Dict(Vec<(Value, Value)>),
    /// A tensor or parameter.
    Tensor(TensorView),
    /// Something harmless that is not looked into, such as `numpy.dtype`: its name.
    Opaque(Arc<str>),
}

/// The type of a tensor's elements, little-endian in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// Signed 64 bit.
    I64,
    /// Signed 32 bit.
    I32,
    /// Signed 16 bit.
    I16,
    /// Signed 8 bit.
    I8,
    /// Unsigned 8 bit.
    U8,
    /// One byte, 0 or 1.
    Bool,
}

/// A tensor: a view into a storage that other tensors may share.
#[derive(Clone)]
pub struct TensorView {
    pub(super) bytes: Arc<[u8]>,
    pub(super) element: ElementType,
    pub(super) layout: Layout,
}

/// Where a tensor's elements lie in its storage; in elements, not bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl ElementType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

impl TensorView {
    /// The elements' type.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// The shape; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }

    /// The elements in row-major order, little-endian; borrowed where they already lie so.
    pub fn row_major(&self) -> Cow<'_, [u8]> {
        let size = self.element.size();
        let start = self.layout.offset * size;
        let count = self.layout.count();
        if self.layout.is_contiguous() {
            return Cow::Borrowed(&self.bytes[start..start + count * size]);
        }
        let mut out = Vec::with_capacity(count * size);
        let mut index = vec![0; self.layout.shape.len()];
        let mut at = self.layout.offset;
        for _ in 0..count {
            out.extend_from_slice(&self.bytes[at * size..(at + 1) * size]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.layout.strides[axis];
                if index[axis] < self.layout.shape[axis] {
                    break;
                }
                at -= index[axis] * self.layout.strides[axis];
                index[axis] = 0;
            }
        }
        Cow::Owned(out)
    }
}

impl Layout {
    /// A layout that stays inside a storage of `elements`; the error says what is wrong.
    pub(super) fn checked(
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
        elements: usize,
    ) -> Result<Self, String> {
        // Eight axes: conv3d weights have five, nothing published has more.
        if shape.len() != strides.len() || shape.len() > 8 {
            return Err(format!("a tensor of shape {shape:?} with strides {strides:?}"));
        }
        let count = shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side));
        let last = shape.iter().zip(&strides).try_fold(offset, |at, (&side, &stride)| {
            at.checked_add(stride.checked_mul(side.saturating_sub(1))?)
        });
        // A view that repeats elements (stride 0) could be made as large as one likes from one byte.
        let fits = match (count, last) {
            (Some(0), _) => true,
            (Some(count), Some(last)) => last < elements && count <= elements,
            _ => false,
        };
        if !fits {
            let view = format!("shape {shape:?}, strides {strides:?}, offset {offset}");
            return Err(format!("a tensor of {view} does not fit a storage of {elements} elements"));
        }
        let offset = if count == Some(0) { 0 } else { offset };
        Ok(Self { offset, shape, strides })
    }

    fn count(&self) -> usize {
        self.shape.iter().product()
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&side, &stride)| {
            let fits = side == 1 || stride == expected;
            expected *= side;
            fits
        }) || self.count() == 0
    }
}

impl fmt::Debug for TensorView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TensorView({:?} {:?})", self.element, self.layout.shape)
    }
}
