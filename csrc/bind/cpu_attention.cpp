// Attention for Python: addresses, strides and sizes in. What they must satisfy is checked in
// perfkit.ops; what would corrupt memory or never end is checked here too.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bind/attention_numbers.h"
#include "cpu/attention.h"

namespace py = pybind11;

namespace perfkit {
namespace {

using attention::kBatchDims;
using attention::Problem;

// sizes: 4 batch dimensions, heads, K/V heads, queries, keys, head dim, value dim
Problem problem(const Numbers& sizes, double scale, bool causal, int threads,
                const std::vector<Numbers>& tensors, std::size_t count) {
  if (sizes.size() != kBatchDims + 6) throw py::value_error("a problem has 10 sizes");
  if (tensors.size() != count) throw py::value_error("wrong number of tensors");
  for (std::int64_t size : sizes)
    if (size < 0) throw py::value_error("a negative size");
  Problem out;
  for (int dim = 0; dim < kBatchDims; ++dim) out.batch[dim] = sizes[dim];
  out.queries = sizes[6];
  out.keys = sizes[7];
  set_heads(out, sizes[4], sizes[5], sizes[8], sizes[9]);
  if (threads < 1) throw py::value_error("at least one thread");
  out.scale = static_cast<float>(scale);
  out.causal = causal;
  out.threads = threads;
  out.q = tensor(tensors[0]);
  out.k = tensor(tensors[1]);
  out.v = tensor(tensors[2]);
  out.mask = tensor(tensors[3]);
  out.bias = tensor(tensors[4]);
  out.out = tensor(tensors[5]);
  out.lse = tensor(tensors[6]);
  return out;
}

void forward(const Numbers& sizes, double scale, bool causal, int threads,
             const std::vector<Numbers>& tensors, const std::string& isa) {
  const Problem p = problem(sizes, scale, causal, threads, tensors, 7);
  const attention::Kernels& chosen = attention_kernels(isa.c_str());
  py::gil_scoped_release release;
  attention::forward(p, chosen);
}

void backward(const Numbers& sizes, double scale, bool causal, int threads,
              const std::vector<Numbers>& tensors, const std::string& isa) {
  Problem p = problem(sizes, scale, causal, threads, tensors, 12);
  p.d_out = tensor(tensors[7]);
  p.d_q = tensor(tensors[8]);
  p.d_k = tensor(tensors[9]);
  p.d_v = tensor(tensors[10]);
  p.d_bias = tensor(tensors[11]);
  const attention::Kernels& chosen = attention_kernels(isa.c_str());
  py::gil_scoped_release release;
  attention::backward(p, chosen);
}

}  // namespace

void bind_attention(py::module_& m) {
  m.def("attention_forward", &forward, py::arg("sizes"), py::arg("scale"), py::arg("causal"),
        py::arg("threads"), py::arg("tensors"), py::arg("isa") = "",
        "tensors: q, k, v, mask, bias, out, lse.");
  m.def("attention_backward", &backward, py::arg("sizes"), py::arg("scale"), py::arg("causal"),
        py::arg("threads"), py::arg("tensors"), py::arg("isa") = "",
        "tensors: q, k, v, mask, bias, out, lse, d_out, d_q, d_k, d_v, d_bias.");
  m.def(
      "attention_isa",
      [] {
        std::vector<std::string> names;
        for (const char* name : {"avx512", "avx2", "portable"})
          if (attention::find_kernels(name) != nullptr) names.emplace_back(name);
        return py::tuple(py::cast(names));
      },
      "Instruction sets of the attention kernels that this processor runs, best first.");
}

}  // namespace perfkit
