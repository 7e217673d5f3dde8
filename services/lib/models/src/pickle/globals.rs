//! The list of globals that a checkpoint may name, and what calling them means here.

use std::sync::Arc;

use super::value::ElementType;

/// A global on the list.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Global {
    /// A dict of some kind.
    Mapping,
    /// A set: its items are kept as a list.
    Set,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`: a view of a storage.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`: the tensor that is its first argument.
    RebuildParameter,
    /// The type of a storage, in persistent ids.
    Storage(ElementType),
    /// `torch.Size`: a tuple.
    Size,
    /// Harmless and of no use here: calling it gives an opaque value.
    Inert(Arc<str>),
}

/// The global of that name if it is on the list. Training scripts put epochs, metrics, arguments and schedulers
/// beside the weights, hence the inert ones.
pub(super) fn look_up(module: &str, name: &str) -> Option<Global> {
    use ElementType::*;
    Some(match (module, name) {
        ("collections", "OrderedDict" | "defaultdict" | "Counter") => Global::Mapping,
        ("builtins" | "__builtin__", "dict") => Global::Mapping,
        ("builtins" | "__builtin__", "set" | "frozenset" | "list") => Global::Set,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::RebuildParameter,
        ("torch", "DoubleStorage") => Global::Storage(F64),
        ("torch", "FloatStorage") => Global::Storage(F32),
        ("torch", "HalfStorage") => Global::Storage(F16),
        ("torch", "BFloat16Storage") => Global::Storage(Bf16),
        ("torch", "LongStorage") => Global::Storage(I64),
        ("torch", "IntStorage") => Global::Storage(I32),
        ("torch", "ShortStorage") => Global::Storage(I16),
        ("torch", "CharStorage") => Global::Storage(I8),
        ("torch", "ByteStorage") => Global::Storage(U8),
        ("torch", "BoolStorage") => Global::Storage(Bool),
        ("torch", "Size") => Global::Size,
        ("torch", "device" | "float64" | "float32" | "float16" | "bfloat16" | "int64" | "int32" | "bool")
        | ("builtins" | "__builtin__", "complex" | "int" | "float" | "bool" | "str" | "object")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar")
        | ("numpy", "dtype" | "float64" | "float32" | "int64")
        | ("argparse", "Namespace")
        | ("_codecs", "encode") => Global::Inert(format!("{module}.{name}").into()),
        _ => return None,
    })
}
