#include "cuda/kernels.cuh"

namespace perfkit::cuda {
template cudaError_t launch_backward<Fp16, 32>(const Problem&, cudaStream_t);
}
