#include "cuda/switch_kernels.cuh"

namespace perfkit::cuda {
template cudaError_t launch_push<Bf16, 128>(Switch&, cudaStream_t);
template cudaError_t launch_pull<Bf16, 128>(Switch&, cudaStream_t);
}
