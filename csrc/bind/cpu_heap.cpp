// The symmetric heap for Python: addresses and integers in, status codes out. Ranges are checked
// here, since a wrong rank or frame would write into somebody's memory.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bind/heap_endpoint.h"
#include "cpu/heap.h"

namespace py = pybind11;

namespace perfkit {
namespace {

using protocol::Layout;

Layout make_layout(std::uint32_t ranks, std::uint32_t frames, std::uint32_t subtiles,
                   std::uint64_t slot_bytes) {
  if (ranks < 1 || ranks > protocol::kMaxRanks)
    throw py::value_error("a heap has 1 to " + std::to_string(protocol::kMaxRanks) + " ranks");
  if (frames < 1 || subtiles < 1) throw py::value_error("a heap has at least one flag per rank");
  if (std::uint64_t{frames} * subtiles > 1u << 24) throw py::value_error("too many flags");
  if (slot_bytes > 1ull << 46) throw py::value_error("slots of more than 64 TiB");
  return {ranks, frames, subtiles, slot_bytes};
}

std::vector<char*> addresses(const std::vector<std::uintptr_t>& bases) {
  std::vector<char*> out;
  for (std::uintptr_t base : bases) {
    if (base == 0 || base % protocol::kLine != 0)
      throw py::value_error("a heap begins on a cache line");
    out.push_back(reinterpret_cast<char*>(base));
  }
  return out;
}

int wait_free(HeapEndpoint& self, std::uint32_t destination, std::uint64_t epoch) {
  self.check_rank(destination);
  py::gil_scoped_release release;
  return static_cast<int>(self.native().wait_free(destination, epoch));
}
void publish(HeapEndpoint& self, std::uint32_t destination, std::uint64_t epoch,
             std::uint32_t frame, std::uint32_t subtile) {
  self.check(destination, frame, subtile);
  self.native().publish(destination, epoch, frame, subtile);
}
bool ready(const HeapEndpoint& self, std::uint32_t source, std::uint64_t epoch,
           std::uint32_t frame, std::uint32_t subtile) {
  self.check(source, frame, subtile);
  return self.native().data_ready(source, epoch, frame, subtile);
}
int wait_data(HeapEndpoint& self, std::uint32_t source, std::uint64_t epoch, std::uint32_t frame,
              std::uint32_t subtile) {
  self.check(source, frame, subtile);
  py::gil_scoped_release release;
  return static_cast<int>(self.native().wait_data(source, epoch, frame, subtile));
}
void acknowledge(HeapEndpoint& self, std::uint32_t source, std::uint64_t epoch) {
  self.check_rank(source);
  self.native().acknowledge(source, epoch);
}
void abort(HeapEndpoint& self, std::uint32_t waited_for) {
  self.check_rank(waited_for);
  self.native().abort(protocol::Reason::user, waited_for);
}
py::tuple aborted(const HeapEndpoint& self) {
  const protocol::Abort why = self.native().aborted();
  return py::make_tuple(static_cast<int>(why.reason), why.by, why.waited_for);
}

py::object inspect_heap(std::uintptr_t base, std::uint64_t bytes) {
  const HeapFacts facts = inspect(reinterpret_cast<const char*>(base), bytes);
  if (!facts.valid) return py::none();
  py::dict out;
  out["ranks"] = facts.layout.ranks;
  out["frames"] = facts.layout.frames;
  out["subtiles"] = facts.layout.subtiles;
  out["slot_bytes"] = facts.layout.slot_bytes;
  out["rank"] = facts.rank;
  out["generation"] = facts.generation;
  out["owner"] = facts.owner;
  out["born"] = facts.born;
  out["space"] = facts.space;
  out["joined"] = facts.joined;
  return std::move(out);
}

}  // namespace

HeapEndpoint::HeapEndpoint(std::uint32_t ranks, std::uint32_t frames, std::uint32_t subtiles,
                           std::uint64_t slot_bytes, std::uint32_t rank,
                           const std::vector<std::uintptr_t>& bases, std::int64_t timeout_ns)
    : bases_(addresses(bases)),
      endpoint_(make_layout(ranks, frames, subtiles, slot_bytes), rank, bases_.data(),
                timeout_ns) {
  if (bases.size() != ranks) throw py::value_error("one base address per rank");
  check_rank(rank);
}

void HeapEndpoint::check_rank(std::uint32_t rank) const {
  if (rank >= endpoint_.layout().ranks)
    throw py::index_error("rank " + std::to_string(rank) + " of a heap of " +
                          std::to_string(endpoint_.layout().ranks));
}

void HeapEndpoint::check(std::uint32_t rank, std::uint32_t frame, std::uint32_t subtile) const {
  check_rank(rank);
  const Layout& layout = endpoint_.layout();
  if (frame >= layout.frames || subtile >= layout.subtiles)
    throw py::index_error("flag [" + std::to_string(frame) + "][" + std::to_string(subtile) +
                          "] of a heap with " + std::to_string(layout.frames) + " x " +
                          std::to_string(layout.subtiles));
}

void bind_heap(py::module_& m) {
  m.attr("HEAP_MAX_RANKS") = protocol::kMaxRanks;
  m.attr("HEAP_SLOTS") = protocol::kSlots;
  m.attr("HEAP_HEADER_BYTES") = sizeof(protocol::Header);
  m.def(
      "heap_bytes",
      [](std::uint32_t ranks, std::uint32_t frames, std::uint32_t subtiles, std::uint64_t slot) {
        return make_layout(ranks, frames, subtiles, slot).bytes();
      },
      "Bytes of one rank's segment.");
  m.def(
      "heap_slot",
      [](std::uint32_t ranks, std::uint32_t frames, std::uint32_t subtiles, std::uint64_t slot,
         std::uint64_t epoch) { return make_layout(ranks, frames, subtiles, slot).slot(epoch); },
      "Offset of an epoch's data in a segment.");
  m.def(
      "heap_initialise",
      [](std::uintptr_t base, std::uint32_t ranks, std::uint32_t frames, std::uint32_t subtiles,
         std::uint64_t slot, std::uint32_t rank, std::uint64_t generation, std::uint64_t owner,
         std::uint64_t born, std::uint64_t space, std::uint64_t first_epoch) {
        HeapInit init;
        init.rank = rank;
        init.generation = generation;
        init.owner = owner;
        init.born = born;
        init.space = space;
        init.first_epoch = first_epoch;
        initialise(reinterpret_cast<char*>(base), make_layout(ranks, frames, subtiles, slot),
                   init);
      },
      "Write a segment's header, flags and acks.");
  m.def("heap_inspect", &inspect_heap, py::arg("base"), py::arg("bytes"),
        "A segment's header, or None when it is not (yet) one.");
  m.def(
      "heap_announce",
      [](std::uintptr_t base, std::uint32_t rank) {
        announce_joined(reinterpret_cast<char*>(base), rank);
      },
      "Say in a segment that a rank has mapped it.");
  py::class_<HeapEndpoint>(m, "Endpoint", "One rank's use of the heaps of all ranks.")
      .def(py::init<std::uint32_t, std::uint32_t, std::uint32_t, std::uint64_t, std::uint32_t,
                    const std::vector<std::uintptr_t>&, std::int64_t>())
      .def("epoch", [](const HeapEndpoint& self) { return self.native().epoch(); })
      .def("begin", [](HeapEndpoint& self) { return self.native().begin(); })
      .def("wait_free", &wait_free)
      .def("publish", &publish)
      .def("ready", &ready)
      .def("wait_data", &wait_data)
      .def("acknowledge", &acknowledge)
      .def("abort", &abort)
      .def("aborted", &aborted);
}

}  // namespace perfkit
