// perfkit._cuda: addresses, strides, sizes and a stream's handle in. What they must satisfy is
// checked in perfkit.ops; what would make a kernel read or write elsewhere is checked here too.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "bind/cuda_numbers.h"
#include "cuda/launch.h"

namespace py = pybind11;

namespace perfkit {
namespace {

using cuda::kBatchDims;
using cuda::narrow;
using cuda::Numbers;
using cuda::Problem;
using cuda::Switch;
using cuda::tensor;
using cuda::Tensor;

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
  if (t.data != nullptr && !t.vectors) throw py::value_error("not aligned to 16 bytes");
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

void begins(std::int32_t* out, const Numbers& given, std::size_t ranks, const char* what) {
  if (given.size() != ranks + 1 || given.front() != 0 ||
      !std::is_sorted(given.begin(), given.end()))
    throw py::value_error(std::string(what) + " do not rise from 0");
  std::transform(given.begin(), given.end(), out, narrow);
}

// bases: where each rank's heap begins; positions, rows: where each rank's part begins, and the
// end; sizes: batches, heads, K/V heads, head dim, bytes of a slot. here: for each rank of this
// launch its number, the address of its counters, and its tensors q, k, v, out, lse.
Switch switched(const Numbers& bases, const Numbers& positions, const Numbers& rows,
                const Numbers& sizes, double scale, bool causal, std::int64_t timeout_ns,
                const std::vector<std::vector<Numbers>>& here) {
  Switch s;
  const std::size_t ranks = bases.size(), most = cuda::kMaxSwitchRanks;
  if (ranks < 1 || ranks > most) throw py::value_error("1 to 8 ranks");
  if (here.empty() || here.size() > ranks) throw py::value_error("ranks here: 1 to all");
  if (sizes.size() != 5) throw py::value_error("a switch has 5 sizes");
  begins(s.positions, positions, ranks, "positions");
  begins(s.rows, rows, ranks, "rows");
  s.batches = narrow(sizes[0]), s.heads = narrow(sizes[1]), s.kv_heads = narrow(sizes[2]);
  s.dim = narrow(sizes[3]);
  if (s.kv_heads < 1 || s.heads % s.kv_heads != 0)
    throw py::value_error("the heads are no multiple of the K/V heads");
  s.timeout_ns = timeout_ns;
  s.layout.ranks = static_cast<std::uint32_t>(ranks);
  s.layout.frames = static_cast<std::uint32_t>(s.all_positions());
  s.layout.slot_bytes = static_cast<std::uint64_t>(sizes[4]);
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    s.bases[rank] = reinterpret_cast<char*>(static_cast<std::uintptr_t>(bases[rank]));
    // Pull needs the most: q, k and v of the own rows.
    if (s.part(static_cast<int>(rank), 2) + s.part(static_cast<int>(rank), 2) -
            s.part(static_cast<int>(rank), 1) > sizes[4] / 2)
      throw py::value_error("the slots are too small");
  }
  s.ranks_here = static_cast<std::int32_t>(here.size());
  for (std::size_t i = 0; i < here.size(); ++i) {
    if (here[i].size() != 6 || here[i][0].size() != 2)
      throw py::value_error("a rank is [number, counters] and 5 tensors");
    cuda::SwitchRank& me = s.here[i];
    me.rank = static_cast<std::uint32_t>(here[i][0][0]);
    if (me.rank >= ranks) throw py::value_error("no such rank");
    me.counters = reinterpret_cast<std::uint32_t*>(static_cast<std::uintptr_t>(here[i][0][1]));
    Problem& p = me.problem;
    p.batch[2] = s.batches, p.batch[3] = s.positions[me.rank + 1] - s.positions[me.rank];
    p.heads = s.heads, p.kv_heads = s.kv_heads, p.queries = p.keys = s.all_rows();
    p.dim = s.dim, p.scale = static_cast<float>(scale), p.causal = causal;
    p.q = tensor(here[i][1]), p.k = tensor(here[i][2]), p.v = tensor(here[i][3]);
    p.out = tensor(here[i][4]), p.lse = tensor(here[i][5]);
    // Results of a push come in `out`, by `collect`.
    me.x[0] = p.q.data != nullptr ? p.q : p.out;
    me.x[1] = p.k, me.x[2] = p.v;
    for (const Tensor* t : {&p.q, &p.k, &p.v, &p.out}) require_vectors(*t);
    if (!(scale > 0.0)) throw py::value_error("a switch needs a positive scale");
  }
  return s;
}

template <cudaError_t (*kRun)(Switch&, cudaStream_t)>
void run_switch(int device, std::uintptr_t stream, const Numbers& bases, const Numbers& positions,
                const Numbers& rows, const Numbers& sizes, double scale, bool causal,
                std::int64_t timeout_ns, const std::vector<std::vector<Numbers>>& here) {
  Switch s = switched(bases, positions, rows, sizes, scale, causal, timeout_ns, here);
  launch(device, stream, "switch", [&](auto handle) { return kRun(s, handle); });
}

template <class Function>
void define_switch(py::module_& m, const char* name, Function function, const char* text) {
  m.def(name, function, py::arg("device"), py::arg("stream"), py::arg("bases"),
        py::arg("positions"), py::arg("rows"), py::arg("sizes"), py::arg("scale"),
        py::arg("causal"), py::arg("timeout_ns"), py::arg("here"), text);
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
  using perfkit::define_switch, perfkit::run_switch;
  define_switch(m, "switch_push", &run_switch<&perfkit::cuda::push>,
                "Attention over own positions (q, k, v), stored into the slots of the rows' owners.");
  define_switch(m, "switch_collect", &run_switch<&perfkit::cuda::collect>,
                "What was pushed to the own slot into `out`; q, k, v are absent.");
  define_switch(m, "switch_stage", &run_switch<&perfkit::cuda::stage>,
                "Own rows of q, k, v into the own slot.");
  define_switch(m, "switch_pull", &run_switch<&perfkit::cuda::pull>,
                "Attention over own positions into `out`, reading what every rank has staged.");
}
