#include "cuda/kernels.cuh"

namespace perfkit::cuda {
template cudaError_t launch_backward<Bf16, 96>(const Problem&, cudaStream_t);
}
