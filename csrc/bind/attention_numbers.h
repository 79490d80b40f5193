// Tensors of an attention problem, as Python passes them.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "cpu/attention.h"

namespace perfkit {

using Numbers = std::vector<std::int64_t>;

// [address, kind, strides of 4 batch dimensions, of heads, rows and columns], or nothing.
inline attention::Tensor tensor(const Numbers& numbers) {
  attention::Tensor out;
  if (numbers.empty()) return out;
  if (numbers.size() != 2 + attention::kBatchDims + 3)
    throw pybind11::value_error("a tensor is 9 numbers");
  if (numbers[1] < 1 || numbers[1] > 3) throw pybind11::value_error("unknown kind of element");
  out.data = reinterpret_cast<char*>(static_cast<std::uintptr_t>(numbers[0]));
  out.kind = static_cast<attention::Kind>(numbers[1]);
  for (int dim = 0; dim < attention::kBatchDims; ++dim) out.batch[dim] = numbers[2 + dim];
  out.head = numbers[2 + attention::kBatchDims];
  out.row = numbers[3 + attention::kBatchDims];
  out.column = numbers[4 + attention::kBatchDims];
  return out;
}

// Heads and head dimensions of a problem.
inline void set_heads(attention::Problem& problem, std::int64_t heads, std::int64_t kv_heads,
                      std::int64_t dim, std::int64_t value_dim) {
  if (dim > attention::kMaxHeadDim || value_dim > attention::kMaxHeadDim)
    throw pybind11::value_error("a head dimension above 256");
  if (kv_heads < 1 || heads % kv_heads != 0)
    throw pybind11::value_error("the heads are no multiple of the K/V heads");
  problem.heads = heads;
  problem.kv_heads = kv_heads;
  problem.dim = static_cast<int>(dim);
  problem.value_dim = static_cast<int>(value_dim);
}

// The kernels of that name, or the best that this processor runs.
inline const attention::Kernels& attention_kernels(const char* isa) {
  const attention::Kernels* found = attention::find_kernels(isa);
  if (found == nullptr)
    throw pybind11::value_error(std::string("this processor cannot run the kernels ") + isa);
  return *found;
}

}  // namespace perfkit
