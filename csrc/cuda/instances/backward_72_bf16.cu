#include "cuda/kernels.cuh"

namespace perfkit::cuda {
template cudaError_t launch_backward<Bf16, 72>(const Problem&, cudaStream_t);
}
