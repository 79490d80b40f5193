// perfkit._cuda: addresses, strides, sizes and a stream's handle in. What they must satisfy is
// checked in perfkit.ops; what would make a kernel read or write elsewhere is checked here too.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/launch.h"

namespace py = pybind11;

namespace perfkit {
namespace {

using cuda::kBatchDims;
using cuda::Kind;
using cuda::Problem;
using cuda::Tensor;

using Numbers = std::vector<std::int64_t>;

// [address, kind, strides of 4 batch dimensions, of heads, rows and columns]
Tensor tensor(const Numbers& numbers) {
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
  constexpr std::int64_t kChunk = cuda::kChunk;
  out.vectors = cuda::element_bytes(out.kind) == 2 && out.column == 1 &&
                numbers[0] % cuda::kChunkBytes == 0 && out.head % kChunk == 0 &&
                out.row % kChunk == 0;
  for (std::int64_t stride : out.batch) out.vectors = out.vectors && stride % kChunk == 0;
  return out;
}

std::int32_t narrow(std::int64_t size) {
  if (size < 0 || size > std::numeric_limits<std::int32_t>::max())
    throw py::value_error("a size is negative or above 2^31 - 1");
  return static_cast<std::int32_t>(size);
}

// sizes: 4 batch dimensions, heads, K/V heads, queries, keys, head dim
Problem problem(const Numbers& sizes, double scale, bool causal,
                const std::vector<Numbers>& tensors, std::size_t count) {
  if (sizes.size() != kBatchDims + 5) throw py::value_error("a problem has 9 sizes");
  if (tensors.size() != count) throw py::value_error("wrong number of tensors");
  Problem out;
  for (int dim = 0; dim < kBatchDims; ++dim) out.batch[dim] = narrow(sizes[dim]);
  out.heads = narrow(sizes[4]);
  out.kv_heads = narrow(sizes[5]);
  out.queries = narrow(sizes[6]);
  out.keys = narrow(sizes[7]);
  out.dim = narrow(sizes[8]);
  if (out.kv_heads < 1 || out.heads % out.kv_heads != 0)
    throw py::value_error("the heads are no multiple of the K/V heads");
  out.scale = static_cast<float>(scale);
  out.causal = causal;
  out.q = tensor(tensors[0]);
  out.k = tensor(tensors[1]);
  out.v = tensor(tensors[2]);
  out.mask = tensor(tensors[3]);
  out.bias = tensor(tensors[4]);
  out.out = tensor(tensors[5]);
  out.lse = tensor(tensors[6]);
  if (out.k.kind != out.q.kind || out.v.kind != out.q.kind || out.out.kind != out.q.kind)
    throw py::value_error("q, k, v and the result have one element type");
  return out;
}

void require_vectors(const Tensor& t) {
  if (t.data != nullptr && !t.vectors) throw py::value_error("a result is not aligned to 16 bytes");
}

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

template <class Launch>
void launch(int device, std::uintptr_t stream, const char* what, Launch run) {
  py::gil_scoped_release release;
  // This module has its own CUDA runtime, with its own idea of the current device.
  check(cudaSetDevice(device), "cudaSetDevice");
  check(run(reinterpret_cast<cudaStream_t>(stream)), what);
}

void forward(int device, std::uintptr_t stream, const Numbers& sizes, double scale, bool causal,
             const std::vector<Numbers>& tensors) {
  const Problem p = problem(sizes, scale, causal, tensors, 7);
  require_vectors(p.out);
  launch(device, stream, "attention forward", [&](auto s) { return cuda::forward(p, s); });
}

void backward(int device, std::uintptr_t stream, const Numbers& sizes, double scale, bool causal,
              const std::vector<Numbers>& tensors) {
  Problem p = problem(sizes, scale, causal, tensors, 13);
  p.d_out = tensor(tensors[7]);
  p.d_q = tensor(tensors[8]);
  p.d_k = tensor(tensors[9]);
  p.d_v = tensor(tensors[10]);
  p.delta = tensor(tensors[11]);
  p.d_scores = tensor(tensors[12]);
  if (p.d_out.kind != p.q.kind) throw py::value_error("d_out has the element type of q");
  for (const Tensor* t : {&p.d_q, &p.d_k, &p.d_v}) require_vectors(*t);
  launch(device, stream, "attention backward", [&](auto s) { return cuda::backward(p, s); });
}

}  // namespace
}  // namespace perfkit

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "Attention kernels of perfkit for NVIDIA GPUs of compute capability 9.0.";
  m.def("attention_forward", &perfkit::forward, py::arg("device"), py::arg("stream"),
        py::arg("sizes"), py::arg("scale"), py::arg("causal"), py::arg("tensors"),
        "tensors: q, k, v, mask, bias, out, lse.");
  m.def("attention_backward", &perfkit::backward, py::arg("device"), py::arg("stream"),
        py::arg("sizes"), py::arg("scale"), py::arg("causal"), py::arg("tensors"),
        "tensors: q, k, v, mask, bias, out, lse, d_out, d_q, d_k, d_v, delta, d_scores.");
}
