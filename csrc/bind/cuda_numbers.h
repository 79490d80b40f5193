// A tensor from Python: [address, kind, strides of 4 batch dimensions, of heads, rows, columns].
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <limits>
#include <vector>

#include "cuda/problem.h"

namespace perfkit::cuda {

using Numbers = std::vector<std::int64_t>;

inline Tensor tensor(const Numbers& numbers) {
  namespace py = pybind11;
  Tensor out;
  if (numbers.empty()) return out;
  if (numbers.size() != 2 + kBatchDims + 3) throw py::value_error("a tensor is 9 numbers");
  if (numbers[1] < 1 || numbers[1] > 4) throw py::value_error("unknown kind of element");
  out.data = reinterpret_cast<char*>(static_cast<std::uintptr_t>(numbers[0]));
  out.kind = static_cast<Kind>(numbers[1]);
  for (int dim = 0; dim < kBatchDims; ++dim) out.batch[dim] = numbers[2 + dim];
  out.head = numbers[2 + kBatchDims];
  out.row = numbers[3 + kBatchDims];
  out.column = numbers[4 + kBatchDims];
  out.vectors = element_bytes(out.kind) == 2 && out.column == 1 &&
                numbers[0] % kChunkBytes == 0 && out.head % kChunk == 0 && out.row % kChunk == 0;
  for (std::int64_t stride : out.batch) out.vectors = out.vectors && stride % kChunk == 0;
  return out;
}

inline std::int32_t narrow(std::int64_t size) {
  if (size < 0 || size > std::numeric_limits<std::int32_t>::max())
    throw pybind11::value_error("a size is negative or above 2^31 - 1");
  return static_cast<std::int32_t>(size);
}

}  // namespace perfkit::cuda
