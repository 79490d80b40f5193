#include "cuda/kernels.cuh"

namespace perfkit::cuda {
template cudaError_t launch_forward<Fp16, 128>(const Problem&, cudaStream_t);
}
