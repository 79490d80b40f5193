// Which kernel runs a problem.
#include <type_traits>

#include "cuda/backward.h"
#include "cuda/device.h"
#include "cuda/launch.cuh"
#include "cuda/launch.h"

namespace perfkit::cuda {

template <class Element, int kThreads>
__global__ void __launch_bounds__(kThreads) delta_kernel(const __grid_constant__ Problem p) {
  delta_rows<Device, Element, kThreads>(p);
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
cudaError_t with_shape(const Problem& p, Run run) {
  return with_dim<32, 64, 72, 80, 96, 128>(p.dim, [&](auto dim) {
    if (p.q.kind == Kind::bf16) return run(Bf16{}, dim);
    if (p.q.kind == Kind::fp16) return run(Fp16{}, dim);
    return cudaErrorInvalidValue;
  });
}

}  // namespace

cudaError_t forward(const Problem& p, cudaStream_t stream) {
  return with_shape(p, [&](auto element, auto dim) {
    return launch_forward<decltype(element), decltype(dim)::value>(p, stream);
  });
}

cudaError_t backward(const Problem& p, cudaStream_t stream) {
  return with_shape(p, [&](auto element, auto dim) {
    const cudaError_t status = delta<decltype(element)>(p, stream);
    if (status != cudaSuccess) return status;
    return launch_backward<decltype(element), decltype(dim)::value>(p, stream);
  });
}

}  // namespace perfkit::cuda
