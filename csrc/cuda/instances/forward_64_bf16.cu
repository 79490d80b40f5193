#include "cuda/kernels.cuh"

namespace perfkit::cuda {
template cudaError_t launch_forward<Bf16, 64>(const Problem&, cudaStream_t);
}
