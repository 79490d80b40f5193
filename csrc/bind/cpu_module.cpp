// perfkit._cpu: plain numbers in, plain numbers and dictionaries out.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>

#include "cpu/probe.h"
#include "cpu/timer.h"

namespace py = pybind11;

namespace perfkit {
void bind_attention(py::module_& m);
void bind_heap(py::module_& m);
void bind_switch_attention(py::module_& m);
}  // namespace perfkit

namespace {

py::dict probe() {
  const perfkit::Probe found = perfkit::probe();
  py::list caches;
  for (const perfkit::Cache& cache : found.caches) {
    py::dict entry;
    entry["level"] = cache.level;
    entry["type"] = cache.type;
    entry["bytes"] = cache.bytes;
    entry["line"] = cache.line;
    entry["shared_by"] = cache.shared_by;
    caches.append(entry);
  }
  py::dict out;
  out["architecture"] = found.architecture;
  out["cpu"] = found.cpu;
  out["logical_cores"] = found.logical_cores;
  out["physical_cores"] = found.physical_cores;
  out["caches"] = caches;
  out["isa"] = py::tuple(py::cast(found.isa));
  out["simd_bytes"] = found.simd_bytes;
  out["page_bytes"] = found.page_bytes;
  out["huge_page_bytes"] = found.huge_page_bytes;
  out["huge_pages"] = found.huge_pages;
  return out;
}

py::tuple time_calls(std::uintptr_t function, std::uintptr_t arguments, int repeats,
                     std::int64_t limit_ns) {
  if (function == 0 || arguments == 0) throw py::value_error("time_calls: a null address");
  if (repeats < 1) throw py::value_error("time_calls: repeats must be at least 1");
  perfkit::Timing timing;
  {
    py::gil_scoped_release release;
    timing = perfkit::time_calls(reinterpret_cast<perfkit::KernelFunction>(function),
                                 reinterpret_cast<void**>(arguments), repeats, limit_ns);
  }
  return py::make_tuple(timing.nanoseconds, timing.code);
}

// ndarray.ctypes.data builds an object and __array_interface__ a dictionary; a kernel call has
// no time for either.
std::uintptr_t address(const py::array& array) {
  return reinterpret_cast<std::uintptr_t>(array.data());
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "Machine probe and clock of perfkit.";
  m.def("probe", &probe, "What this machine has, as this process may use it.");
  m.def("now_ns", &perfkit::now_ns, "A monotonic clock in nanoseconds.");
  m.def("address", &address, py::arg("array").noconvert(),
        "Address of the first element of a NumPy array.");
  m.def("time_calls", &time_calls, py::arg("function"), py::arg("arguments"),
        py::arg("repeats") = 1, py::arg("limit_ns") = 0,
        "Time calls of a kernel by address: (nanoseconds per completed call, return code).");
  perfkit::bind_attention(m);
  perfkit::bind_heap(m);
  perfkit::bind_switch_attention(m);
}
