#include "cuda/switch_kernels.cuh"

namespace perfkit::cuda {
template cudaError_t launch_push<Fp16, 80>(Switch&, cudaStream_t);
template cudaError_t launch_pull<Fp16, 80>(Switch&, cudaStream_t);
}
