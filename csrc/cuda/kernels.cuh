// Kernels around the bodies, and their launches; what the files of instances/ include.
#pragma once

#include "cuda/backward.h"
#include "cuda/device.h"
#include "cuda/forward.h"
#include "cuda/launch.cuh"
#include "cuda/launch.h"

namespace perfkit::cuda {

constexpr int kMaxSharedBytes = 227 * 1024;  // of one block on compute capability 9.0

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads)
    forward_kernel(const __grid_constant__ Problem p) {
  extern __shared__ __align__(128) char memory[];
  forward<Device, Shape>(p, Device::shared(memory));
}
template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads)
    backward_kv_kernel(const __grid_constant__ Problem p) {
  extern __shared__ __align__(128) char memory[];
  backward_kv<Device, Shape>(p, Device::shared(memory));
}
template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads)
    backward_q_kernel(const __grid_constant__ Problem p) {
  extern __shared__ __align__(128) char memory[];
  backward_q<Device, Shape>(p, Device::shared(memory));
}
template <class Shape>
cudaError_t launch_forward_shape(const Problem& p, cudaStream_t stream) {
  static_assert(Shape::kSharedBytes <= kMaxSharedBytes);
  return launch(&forward_kernel<Shape>, p.batches() * p.heads, p.queries, Shape::kRows,
                Shape::kThreads, Shape::kSharedBytes, p, stream);
}
template <class Element, int kDim>
cudaError_t launch_forward(const Problem& p, cudaStream_t stream) {
  return p.general() ? launch_forward_shape<ForwardShape<Element, kDim, true>>(p, stream)
                     : launch_forward_shape<ForwardShape<Element, kDim, false>>(p, stream);
}

template <class Kv, class Q>
cudaError_t launch_backward_shapes(const Problem& p, cudaStream_t stream) {
  static_assert(Kv::kSharedBytes <= kMaxSharedBytes && Q::kSharedBytes <= kMaxSharedBytes);
  const cudaError_t status =
      launch(&backward_kv_kernel<Kv>, p.batches() * p.kv_heads, p.keys, Kv::kRows, Kv::kThreads,
             Kv::kSharedBytes, p, stream);
  if (status != cudaSuccess) return status;
  return launch(&backward_q_kernel<Q>, p.batches() * p.heads, p.queries, Q::kRows, Q::kThreads,
                Q::kSharedBytes, p, stream);
}
template <class Element, int kDim>
cudaError_t launch_backward(const Problem& p, cudaStream_t stream) {
  if (p.general())
    return launch_backward_shapes<BackwardKvShape<Element, kDim, true>,
                                  BackwardQShape<Element, kDim, true>>(p, stream);
  return launch_backward_shapes<BackwardKvShape<Element, kDim, false>,
                                BackwardQShape<Element, kDim, false>>(p, stream);
}

}  // namespace perfkit::cuda
