// Fused switch and attention for Python: an endpoint, addresses, strides and sizes in, a status
// out. What would write outside a heap is checked here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bind/attention_numbers.h"
#include "bind/heap_endpoint.h"
#include "cpu/switch_attention.h"

namespace py = pybind11;

namespace perfkit {
namespace {

using exchange::Segment;

// sizes: batch, rows, positions, ranks, rank, frames, heads, K/V heads, head dim, value dim
Segment segment(const Numbers& sizes, bool pull, bool push) {
  if (sizes.size() != 10) throw py::value_error("a segment has 10 sizes");
  for (std::int64_t size : sizes)
    if (size < 0 || size > std::int64_t{1} << 40) throw py::value_error("a size out of range");
  if (sizes[3] < 1 || sizes[3] > protocol::kMaxRanks || sizes[4] >= sizes[3] || sizes[5] < 1 ||
      sizes[5] > 1 << 20)
    throw py::value_error("wrong ranks or frames");
  Segment out;
  out.geometry.batch = sizes[0];
  out.geometry.rows = sizes[1];
  out.geometry.positions = sizes[2];
  out.geometry.ranks = static_cast<std::uint32_t>(sizes[3]);
  out.geometry.rank = static_cast<std::uint32_t>(sizes[4]);
  out.geometry.frames = static_cast<std::uint32_t>(sizes[5]);
  set_heads(out.problem, sizes[6], sizes[7], sizes[8], sizes[9]);
  out.geometry.kv_heads = out.problem.kv_heads;
  out.pull = pull;
  out.push = push;
  return out;
}

// Bytes that a slot must have for a segment of that element type.
std::uint64_t slot_bytes(const Numbers& sizes, bool pull, bool push, int kind) {
  Segment s = segment(sizes, pull, push);
  for (attention::Tensor* t : {&s.problem.q, &s.problem.k, &s.problem.v})
    t->kind = static_cast<attention::Kind>(kind);
  return static_cast<std::uint64_t>(exchange::slot_bytes(s));
}

using Run = exchange::Status (*)(const Segment&, const attention::Kernels&, exchange::Endpoint&,
                                 const exchange::Settings&);

int run(Run function, HeapEndpoint& endpoint, const Segment& s, int threads, bool in_order,
        double link, const std::string& isa) {
  const protocol::Layout& layout = endpoint.native().layout();
  if (layout.ranks != s.geometry.ranks || endpoint.native().rank() != s.geometry.rank)
    throw py::value_error("the heap has other ranks");
  if (layout.frames < s.geometry.frames || layout.subtiles < 2)
    throw py::value_error("the heap has too few flags");
  if (layout.slot_bytes < static_cast<std::uint64_t>(exchange::slot_bytes(s)))
    throw py::value_error("the heap's slots are too small");
  if (threads < 1) throw py::value_error("at least one thread");
  exchange::Settings settings;
  settings.threads = threads;
  settings.in_order = in_order;
  settings.link = link;
  const attention::Kernels& chosen = attention_kernels(isa.c_str());
  py::gil_scoped_release release;
  return static_cast<int>(function(s, chosen, endpoint.native(), settings));
}

int forward(HeapEndpoint& endpoint, const Numbers& sizes, double scale, bool causal, bool pull,
            bool push, const std::vector<Numbers>& tensors, int threads, bool in_order,
            double link, const std::string& isa) {
  if (tensors.size() != 10) throw py::value_error("wrong number of tensors");
  Segment s = segment(sizes, pull, push);
  attention::Problem& p = s.problem;
  p.scale = static_cast<float>(scale);
  p.causal = causal;
  attention::Tensor* targets[] = {&p.q, &p.k, &p.v, &p.mask, &p.out,
                                  &p.lse, &s.saved_q, &s.saved_k, &s.saved_v, &s.saved_out};
  for (std::size_t i = 0; i < tensors.size(); ++i) *targets[i] = tensor(tensors[i]);
  return run(&exchange::forward, endpoint, s, threads, in_order, link, isa);
}

int backward(HeapEndpoint& endpoint, const Numbers& sizes, double scale, bool causal, bool pull,
             bool push, const std::vector<Numbers>& tensors, int threads, bool in_order,
             double link, const std::string& isa) {
  if (tensors.size() != 10) throw py::value_error("wrong number of tensors");
  Segment s = segment(sizes, pull, push);
  attention::Problem& p = s.problem;
  p.scale = static_cast<float>(scale);
  p.causal = causal;
  attention::Tensor* targets[] = {&p.q, &p.k, &p.v, &p.mask, &p.out,
                                  &p.lse, &p.d_out, &p.d_q, &p.d_k, &p.d_v};
  for (std::size_t i = 0; i < tensors.size(); ++i) *targets[i] = tensor(tensors[i]);
  return run(&exchange::backward, endpoint, s, threads, in_order, link, isa);
}

}  // namespace

void bind_switch_attention(py::module_& m) {
  m.def("switch_attention_slot_bytes", &slot_bytes, py::arg("sizes"), py::arg("pull"),
        py::arg("push"), py::arg("kind"),
        "Bytes of a heap's slots; sizes: batch, rows, positions, ranks, rank, frames, heads, "
        "K/V heads, head dim, value dim.");
  const auto define = [&](const char* name, auto function, const char* doc) {
    m.def(name, function, py::arg("endpoint"), py::arg("sizes"), py::arg("scale"),
          py::arg("causal"), py::arg("pull"), py::arg("push"), py::arg("tensors"),
          py::arg("threads"), py::arg("in_order"), py::arg("link"), py::arg("isa") = "", doc);
  };
  define("switch_attention_forward", &forward,
         "tensors: q, k, v, mask, out, lse, and to be saved: q, k, v, out.");
  define("switch_attention_backward", &backward,
         "tensors: q, k, v, mask, out, lse, d_out, d_q, d_k, d_v.");
}

}  // namespace perfkit
