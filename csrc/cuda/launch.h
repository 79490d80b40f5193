// The kernels as functions of the host. Each returns after the launch, on the given stream, and
// can be captured in a graph: nothing is allocated, synchronised or copied.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/problem.h"

namespace perfkit::cuda {

// Defined in instances/, one file for each.
template <class Element, int kDim>
cudaError_t launch_forward(const Problem& p, cudaStream_t stream);
template <class Element, int kDim>
cudaError_t launch_backward(const Problem& p, cudaStream_t stream);

// By the kind of `q` and the head dimension; cudaErrorInvalidValue when there is no such kernel.
cudaError_t forward(const Problem& p, cudaStream_t stream);
cudaError_t backward(const Problem& p, cudaStream_t stream);  // fills p.delta first

}  // namespace perfkit::cuda
