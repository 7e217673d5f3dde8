//! Checkpoints of others become bundles. Offline only: this is where pickles are read.

use tch::{Kind, TchError, Tensor};

use crate::pickle::{ElementType, TensorView};

/// The view's values as a tensor of its own, on the CPU.
pub(crate) fn tensor_of(view: &TensorView) -> Result<Tensor, TchError> {
    let kind = match view.element() {
        ElementType::F64 => Kind::Double,
        ElementType::F32 => Kind::Float,
        ElementType::F16 => Kind::Half,
        ElementType::Bf16 => Kind::BFloat16,
        ElementType::I64 => Kind::Int64,
        ElementType::I32 => Kind::Int,
        ElementType::I16 => Kind::Int16,
        ElementType::I8 => Kind::Int8,
        ElementType::U8 => Kind::Uint8,
        ElementType::Bool => Kind::Bool,
    };
    let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    Tensor::f_from_data_size(&view.row_major(), &shape, kind)
}
