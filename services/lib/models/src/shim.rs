//! The border to C and C++: the only unsafe code of the workspace, but for one call of librdkafka in `stream`.
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

/// The weight in the layout that oneDNN's kernels read for maps of `side` × `side`. CPU only.
pub(crate) fn pack_weight(conv: &Convolution<'_>, side: i64) -> Result<Tensor, TchError> {
    // SAFETY: the tensors that `conv` points to outlive the call; `output` is ours.
    owned(|output| unsafe { ts_pack_weight(&conv.flat(), side, output) })
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

/// Tells malloc to keep what is freed. Activations are blocks of tens of megabytes that live for a millisecond; by
/// default each is mapped, faulted in page by page, and unmapped: up to 59 ms for one image.
pub(crate) fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value) in
        [(libc::M_MMAP_MAX, 0), (libc::M_TRIM_THRESHOLD, 1 << 30), (libc::M_TOP_PAD, 64 << 20)]
    {
        // SAFETY: `mallopt` takes plain numbers; glibc locks around it.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Loads libtorch's CUDA half if this machine has it. rustc links `--as-needed`, so nothing else would.
pub(crate) fn load_cuda() {
    // SAFETY: a constant C string; the library's constructors only register its operators. It is never unloaded.
    unsafe { libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
}

/// A stream of a GPU for copies, beside the one that computes.
pub(crate) struct CopyStream {
    stream: *mut c_void,
}

/// A copy under way.
pub(crate) struct Sent {
    event: *mut c_void,
}

// SAFETY: both are handles of the CUDA runtime, which any one thread at a time may use; nothing here is shared.
unsafe impl Send for CopyStream {}
// SAFETY: as above.
unsafe impl Send for Sent {}

impl CopyStream {
    pub(crate) fn new(device_index: usize) -> Result<Self, TchError> {
        let index = i32::try_from(device_index).map_err(|error| TchError::Convert(error.to_string()))?;
        let mut stream = ptr::null_mut();
        // SAFETY: `stream` is ours to be filled; it is freed in `drop`.
        checked(unsafe { ts_copy_stream_new(index, &mut stream) })?;
        Ok(Self { stream })
    }

    /// `pinned` on the device. The pinned memory must not be written before [`Sent::wait`].
    pub(crate) fn send(&self, pinned: &Tensor) -> Result<(Tensor, Sent), TchError> {
        let mut event = ptr::null_mut();
        // SAFETY: the stream lives as long as self; `pinned` outlives the call and, by the contract above, the copy
        // (its storage is kept by the caller's buffer); tensor and event are ours.
        let tensor =
            owned(|output| unsafe { ts_copy_stream_send(self.stream, pinned.as_ptr(), output, &mut event) })?;
        Ok((tensor, Sent { event }))
    }
}

impl Sent {
    /// Blocks until the copy has left the pinned memory.
    pub(crate) fn wait(self) -> Result<(), TchError> {
        // SAFETY: the event is alive until `drop`.
        checked(unsafe { ts_event_wait(self.event) })
    }
}

impl Drop for CopyStream {
    fn drop(&mut self) {
        // SAFETY: came from `ts_copy_stream_new`, freed once.
        unsafe { ts_copy_stream_free(self.stream) }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // SAFETY: came from `ts_copy_stream_send`, freed once.
        unsafe { ts_event_free(self.event) }
    }
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
    fn ts_pack_weight(conv: *const FlatConvolution, side: i64, output: *mut *mut C_tensor) -> *mut c_char;
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
    fn ts_copy_stream_new(index: i32, output: *mut *mut c_void) -> *mut c_char;
    fn ts_copy_stream_free(stream: *mut c_void);
    fn ts_copy_stream_send(
        stream: *mut c_void,
        pinned: *const C_tensor,
        output: *mut *mut C_tensor,
        event: *mut *mut c_void,
    ) -> *mut c_char;
    fn ts_event_wait(event: *const c_void) -> *mut c_char;
    fn ts_event_free(event: *mut c_void);
}
