// The launch of a kernel that takes one structure.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <limits>

namespace perfkit::cuda {

// One block for every `rows` rows of every head; nothing is launched for nothing.
template <class Parameters>
cudaError_t launch(void (*kernel)(Parameters), std::int64_t heads, std::int64_t length, int rows,
                   int threads, int shared_bytes, const Parameters& p, cudaStream_t stream) {
  const std::int64_t blocks = heads * ((length + rows - 1) / rows);
  if (blocks == 0) return cudaSuccess;
  if (blocks > std::numeric_limits<std::int32_t>::max()) return cudaErrorInvalidConfiguration;
  const cudaError_t status = cudaFuncSetAttribute(
      reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
      shared_bytes);
  if (status != cudaSuccess) return status;
  void* arguments[] = {const_cast<Parameters*>(&p)};
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel),
                          dim3(static_cast<unsigned>(blocks)),
                          dim3(static_cast<unsigned>(threads)), arguments,
                          static_cast<std::size_t>(shared_bytes), stream);
}

}  // namespace perfkit::cuda
