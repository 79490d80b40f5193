#include "cuda/kernels.cuh"

namespace perfkit::cuda {
template cudaError_t launch_forward<Bf16, 80>(const Problem&, cudaStream_t);
}
