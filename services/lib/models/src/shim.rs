//! The border to C and C++: the only unsafe code of the workspace.
//!
//! Every function here is safe to call: tensors live as long as the borrow, returned tensors are owned, C++ exceptions
//! come back as errors.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::ptr;

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

/// A convolution with what oneDNN does in the same call.
pub(crate) struct Convolution<'a> {
    pub(crate) weight: &'a Tensor,
    pub(crate) bias: Option<&'a Tensor>,
    pub(crate) stride: i64,
    pub(crate) padding: i64,
    pub(crate) groups: i64,
    pub(crate) relu: bool,
}

/// While it lives, this thread's operations neither record gradients nor count versions. Stays on its thread.
pub struct InferenceMode {
    guard: *mut c_void,
    not_send: PhantomData<*const ()>,
}

impl InferenceMode {
    /// Enters inference mode on this thread. Guards must be dropped in the reverse order of their creation.
    pub fn enter() -> Self {
        // SAFETY: allocates a guard object; the pointer is only given back in `drop`, on the same thread (not Send).
        InferenceMode { guard: unsafe { ts_inference_mode_enter() }, not_send: PhantomData }
    }
}

impl Drop for InferenceMode {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `ts_inference_mode_enter` and is freed once.
        unsafe { ts_inference_mode_leave(self.guard) }
    }
}

/// The tensor itself if it is channels last already, a channels-last copy otherwise.
pub(crate) fn channels_last(input: &Tensor) -> Result<Tensor, TchError> {
    // SAFETY: `input` outlives the call; `output` is a fresh tensor that we own.
    owned(|output| unsafe { ts_channels_last(input.as_ptr(), output) })
}

/// The weight in the layout that oneDNN's kernels read. CPU only.
pub(crate) fn pack_weight(conv: &Convolution<'_>) -> Result<Tensor, TchError> {
    // SAFETY: the tensors that `conv` points to outlive the call; `output` is ours.
    owned(|output| unsafe { ts_pack_weight(&conv.flat(), output) })
}

/// Convolution, bias and ReLU in one oneDNN call. CPU, no gradients.
pub(crate) fn convolve(input: &Tensor, conv: &Convolution<'_>) -> Result<Tensor, TchError> {
    // SAFETY: `input` and the tensors of `conv` outlive the call; `output` is ours.
    owned(|output| unsafe { ts_convolve(input.as_ptr(), &conv.flat(), output) })
}

/// `sum += convolution(input)` in one oneDNN call. CPU, no gradients.
pub(crate) fn convolve_onto(
    sum: &mut Tensor,
    input: &Tensor,
    conv: &Convolution<'_>,
) -> Result<(), TchError> {
    // SAFETY: all tensors outlive the call; `sum` is exclusively borrowed.
    checked(unsafe { ts_convolve_onto(sum.as_mut_ptr(), input.as_ptr(), &conv.flat()) })
}

impl Convolution<'_> {
    fn flat(&self) -> FlatConvolution {
        FlatConvolution {
            weight: self.weight.as_ptr(),
            bias: self.bias.map_or(ptr::null(), Tensor::as_ptr),
            stride: self.stride,
            padding: self.padding,
            groups: self.groups,
            relu: i32::from(self.relu),
        }
    }
}

fn owned(call: impl FnOnce(*mut *mut C_tensor) -> *mut c_char) -> Result<Tensor, TchError> {
    let mut output = ptr::null_mut();
    checked(call(&mut output))?;
    // SAFETY: without an error message the shim has put a new tensor there, owned by the caller.
    Ok(unsafe { Tensor::from_ptr(output) })
}

fn checked(message: *mut c_char) -> Result<(), TchError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: a message that is not null is a C string of the shim, freed by the shim, read before.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        ts_free_message(message);
        text
    };
    Err(TchError::Torch(text))
}

/// `TsConvolution` of shim.cpp.
#[repr(C)]
struct FlatConvolution {
    weight: *const C_tensor,
    bias: *const C_tensor,
    stride: i64,
    padding: i64,
    groups: i64,
    relu: i32,
}

unsafe extern "C" {
    fn ts_free_message(message: *mut c_char);
    fn ts_channels_last(input: *const C_tensor, output: *mut *mut C_tensor) -> *mut c_char;
    fn ts_inference_mode_enter() -> *mut c_void;
    fn ts_inference_mode_leave(guard: *mut c_void);
    fn ts_pack_weight(conv: *const FlatConvolution, output: *mut *mut C_tensor) -> *mut c_char;
    fn ts_convolve(
        input: *const C_tensor,
        conv: *const FlatConvolution,
        output: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn ts_convolve_onto(
        sum: *mut C_tensor,
        input: *const C_tensor,
        conv: *const FlatConvolution,
    ) -> *mut c_char;
}
