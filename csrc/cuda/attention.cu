// Which kernel runs a problem.
#include <type_traits>

#include "cuda/backward.h"
#include "cuda/device.h"
#include "cuda/launch.cuh"
#include "cuda/launch.h"
#include "cuda/switch.h"

namespace perfkit::cuda {

template <class Element, int kThreads>
__global__ void __launch_bounds__(kThreads) delta_kernel(const __grid_constant__ Problem p) {
  delta_rows<Device, Element, kThreads>(p);
}

constexpr int kCopyThreads = 256;

__global__ void __launch_bounds__(kCopyThreads) collect_kernel(const __grid_constant__ Switch s) {
  collect<Device, kCopyThreads>(s);
}
__global__ void __launch_bounds__(kCopyThreads) stage_kernel(const __grid_constant__ Switch s) {
  stage<Device, kCopyThreads>(s);
}

namespace {

constexpr int kDeltaThreads = 256;

template <class Element>
cudaError_t delta(const Problem& p, cudaStream_t stream) {
  return launch(&delta_kernel<Element, kDeltaThreads>, p.batches() * p.heads, p.queries,
                kDeltaThreads / kWarp, kDeltaThreads, 0, p, stream);
}

// Calls `run` with a compile-time head dimension.
template <int... kDims, class Run>
cudaError_t with_dim(int dim, Run run) {
  cudaError_t status = cudaErrorInvalidValue;
  ((dim == kDims ? (status = run(std::integral_constant<int, kDims>{}), true) : false) || ...);
  return status;
}

template <class Run>
cudaError_t with_shape(int dim, Kind kind, Run run) {
  return with_dim<32, 64, 72, 80, 96, 128>(dim, [&](auto dim) {
    if (kind == Kind::bf16) return run(Bf16{}, dim);
    if (kind == Kind::fp16) return run(Fp16{}, dim);
    return cudaErrorInvalidValue;
  });
}

// Copies are few and long: blocks that loop. They wait, so they must all fit on the GPU at once.
cudaError_t copy(void (*kernel)(Switch), Switch& s, cudaStream_t stream) {
  int device = 0, processors = 0;
  cudaError_t status = cudaGetDevice(&device);
  if (status == cudaSuccess)
    status = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (status != cudaSuccess) return status;
  s.blocks = processors / s.ranks_here;
  return launch(kernel, s.ranks_here, s.blocks, 1, kCopyThreads, 0, s, stream);
}

}  // namespace

cudaError_t forward(const Problem& p, cudaStream_t stream) {
  return with_shape(p.dim, p.q.kind, [&](auto element, auto dim) {
    return launch_forward<decltype(element), decltype(dim)::value>(p, stream);
  });
}

cudaError_t backward(const Problem& p, cudaStream_t stream) {
  return with_shape(p.dim, p.q.kind, [&](auto element, auto dim) {
    const cudaError_t status = delta<decltype(element)>(p, stream);
    if (status != cudaSuccess) return status;
    return launch_backward<decltype(element), decltype(dim)::value>(p, stream);
  });
}

cudaError_t push(Switch& s, cudaStream_t stream) {
  return with_shape(s.dim, s.here[0].problem.q.kind, [&](auto element, auto dim) {
    return launch_push<decltype(element), decltype(dim)::value>(s, stream);
  });
}
cudaError_t pull(Switch& s, cudaStream_t stream) {
  return with_shape(s.dim, s.here[0].x[0].kind, [&](auto element, auto dim) {
    return launch_pull<decltype(element), decltype(dim)::value>(s, stream);
  });
}
cudaError_t collect(Switch& s, cudaStream_t stream) { return copy(&collect_kernel, s, stream); }
cudaError_t stage(Switch& s, cudaStream_t stream) { return copy(&stage_kernel, s, stream); }

}  // namespace perfkit::cuda
