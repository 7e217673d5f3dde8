// What tch lacks: channels-last copies, inference mode, oneDNN's fused convolutions, streams.
//
// Conventions: tensors are tch's `C_tensor` (a heap-allocated at::Tensor); a returned tensor belongs to the caller.
// A function that can fail returns its message (for `ts_free_message`) or null; no exception leaves this file.

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/Event.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

using at::Tensor;

namespace {

template <class Body>
char *guarded(Body body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}

using Scalars = c10::List<std::optional<at::Scalar>>;
using Text = std::optional<std::string_view>;

// The operators that torch.compile emits for CPUs; schemas as of libtorch 2.11.
using Convolve = Tensor(const Tensor &, const Tensor &, const std::optional<Tensor> &, at::IntArrayRef,
                        at::IntArrayRef, at::IntArrayRef, int64_t, std::string_view, Scalars, Text);
using ConvolveOnto = Tensor &(Tensor &, const Tensor &, const Tensor &, const std::optional<Tensor> &,
                              at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, int64_t, std::string_view,
                              std::optional<at::Scalar>, Text, Scalars, Text);
using Reorder = Tensor(const Tensor &, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, int64_t,
                       at::OptionalIntArrayRef);

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const char *name, const char *overload) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).template typed<Signature>();
}

std::optional<Tensor> optional(const Tensor *tensor) {
  return tensor == nullptr ? std::nullopt : std::optional<Tensor>(*tensor);
}

constexpr int64_t DILATION[2] = {1, 1};

struct Pair {
  int64_t values[2];
  explicit Pair(int64_t value) : values{value, value} {}
  operator at::IntArrayRef() const { return {values, 2}; }
};

} // namespace

extern "C" {

// The layout of shim::Convolution, flattened for the border.
struct TsConvolution {
  const Tensor *weight;
  const Tensor *bias;
  int64_t stride;
  int64_t padding;
  int64_t groups;
  int32_t relu;
};

void ts_free_message(char *message) { free(message); }

char *ts_channels_last(const Tensor *input, Tensor **output) {
  return guarded([&] { *output = new Tensor(input->contiguous(at::MemoryFormat::ChannelsLast)); });
}

void *ts_inference_mode_enter() { return new c10::InferenceMode(true); }

void ts_inference_mode_leave(void *guard) { delete static_cast<c10::InferenceMode *>(guard); }

char *ts_pack_weight(const TsConvolution *conv, int64_t side, Tensor **output) {
  return guarded([&] {
    static const auto reorder = find<Reorder>("mkldnn::_reorder_convolution_weight", "");
    // The layout is the same for every batch from 1 to 8 (seen in oneDNN's verbose log).
    const int64_t input[4] = {8, conv->weight->size(1) * conv->groups, side, side};
    *output = new Tensor(reorder.call(*conv->weight, Pair(conv->padding), Pair(conv->stride), DILATION,
                                      conv->groups, at::IntArrayRef(input)));
  });
}

char *ts_convolve(const Tensor *input, const TsConvolution *conv, Tensor **output) {
  return guarded([&] {
    static const auto convolve = find<Convolve>("mkldnn::_convolution_pointwise", "");
    *output = new Tensor(convolve.call(*input, *conv->weight, optional(conv->bias), Pair(conv->padding),
                                       Pair(conv->stride), DILATION, conv->groups,
                                       conv->relu ? "relu" : "none", Scalars(), std::nullopt));
  });
}

char *ts_convolve_onto(Tensor *sum, const Tensor *input, const TsConvolution *conv) {
  return guarded([&] {
    static const auto convolve = find<ConvolveOnto>("mkldnn::_convolution_pointwise_", "binary");
    const Text then = conv->relu ? Text("relu") : std::nullopt;
    convolve.call(*sum, *input, *conv->weight, optional(conv->bias), Pair(conv->padding),
                  Pair(conv->stride), DILATION, conv->groups, "add", std::nullopt, then, Scalars(),
                  std::nullopt);
  });
}

// A stream of a CUDA device beside the one that computes. Device-generic classes, so no CUDA header is needed.
struct TsCopyStream {
  c10::Device device;
  c10::Stream stream;
};

char *ts_copy_stream_new(int32_t index, TsCopyStream **output) {
  return guarded([&] {
    const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
    const c10::impl::VirtualGuardImpl impl(device.type());
    *output = new TsCopyStream{device, impl.getStreamFromGlobalPool(device)};
  });
}

void ts_copy_stream_free(TsCopyStream *stream) { delete stream; }

// Copies a pinned tensor to the device. `*sent` tells when the pinned memory may be written again.
char *ts_copy_stream_send(TsCopyStream *copy, const Tensor *pinned, Tensor **output, c10::Event **sent) {
  return guarded([&] {
    const c10::impl::VirtualGuardImpl impl(copy->device.type());
    const c10::Stream compute = impl.getStream(copy->device);
    auto event = std::make_unique<c10::Event>(copy->device.type());
    Tensor there;
    {
      c10::StreamGuard guard(copy->stream);
      there = pinned->to(copy->device, /*non_blocking=*/true);
      event->record(copy->stream);
    }
    // The computing stream waits for the copy, and the allocator keeps the memory until that stream is done with it.
    event->block(compute);
    there.record_stream(compute);
    *output = new Tensor(there);
    *sent = event.release();
  });
}

char *ts_event_wait(const c10::Event *event) {
  return guarded([&] { event->synchronize(); });
}

void ts_event_free(c10::Event *event) { delete event; }

} // extern "C"
