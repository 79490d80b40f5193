// Kernels of attention fused with the switch; what instances/switch_*.cu include.
#pragma once

#include "cuda/device.h"
#include "cuda/launch.cuh"
#include "cuda/launch.h"
#include "cuda/switch.h"

namespace perfkit::cuda {

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads) push_kernel(const __grid_constant__ Switch s) {
  extern __shared__ __align__(128) char memory[];
  push_forward<Device, Shape>(s, Device::shared(memory));
}
template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads) pull_kernel(const __grid_constant__ Switch s) {
  extern __shared__ __align__(128) char memory[];
  pull_forward<Device, Shape>(s, Device::shared(memory));
}

// Every rank of a launch has the blocks of the one with the most positions.
template <class Shape>
cudaError_t launch_switch(void (*kernel)(Switch), Switch& s, cudaStream_t stream) {
  int most = 0;
  for (int here = 0; here < s.ranks_here; ++here) {
    const std::uint32_t rank = s.here[here].rank;
    const int own = s.positions[rank + 1] - s.positions[rank];
    most = own > most ? own : most;
  }
  const std::int64_t tiles = (s.all_rows() + Shape::kRows - 1) / Shape::kRows;
  const std::int64_t blocks = std::int64_t{most} * s.batches * s.heads * tiles;
  if (blocks * s.ranks_here > std::numeric_limits<std::int32_t>::max())
    return cudaErrorInvalidConfiguration;
  s.blocks = blocks > 0 ? static_cast<std::int32_t>(blocks) : 1;
  return launch(kernel, s.ranks_here, s.blocks, 1, Shape::kThreads, Shape::kSharedBytes, s,
                stream);
}
template <class Element, int kDim>
cudaError_t launch_push(Switch& s, cudaStream_t stream) {
  using Shape = SwitchShape<Element, kDim>;
  return launch_switch<Shape>(&push_kernel<Shape>, s, stream);
}
template <class Element, int kDim>
cudaError_t launch_pull(Switch& s, cudaStream_t stream) {
  using Shape = SwitchShape<Element, kDim>;
  return launch_switch<Shape>(&pull_kernel<Shape>, s, stream);
}

}  // namespace perfkit::cuda
