// The kernels as functions of the host. Each returns after the launch, on the given stream, and
// can be captured in a graph: nothing is allocated, synchronised or copied.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/problem.h"
#include "cuda/switch.h"

namespace perfkit::cuda {

// Defined in instances/, one file for each.
template <class Element, int kDim>
cudaError_t launch_forward(const Problem& p, cudaStream_t stream);
template <class Element, int kDim>
cudaError_t launch_backward(const Problem& p, cudaStream_t stream);

template <class Element, int kDim>
cudaError_t launch_push(Switch& s, cudaStream_t stream);
template <class Element, int kDim>
cudaError_t launch_pull(Switch& s, cudaStream_t stream);

// By the kind of `q` and the head dimension; cudaErrorInvalidValue when there is no such kernel.
cudaError_t forward(const Problem& p, cudaStream_t stream);
cudaError_t backward(const Problem& p, cudaStream_t stream);  // fills p.delta first

// One operation of every rank in `s` (switch.h); `s.blocks` is set here. Element types are by the
// kind of the first rank's q. The second half must be launched after the first, on every rank.
cudaError_t push(Switch& s, cudaStream_t stream);     // attention, results into the slots
cudaError_t collect(Switch& s, cudaStream_t stream);  // the own slot into a tensor
cudaError_t stage(Switch& s, cudaStream_t stream);    // own rows into the own slot
cudaError_t pull(Switch& s, cudaStream_t stream);     // attention over the ranks' slots

}  // namespace perfkit::cuda
