// What the machine has, as this process may use it. No Python here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace perfkit {

struct Cache {
  int level = 0;
  std::string type;          // "data" or "unified"
  std::int64_t bytes = 0;
  int line = 0;              // bytes
  int shared_by = 1;         // logical CPUs of this process's affinity mask that share it
};

struct Probe {
  std::string architecture;  // "x86_64", "aarch64", ...
  std::string cpu;           // the model's name and its family/model/stepping numbers
  int logical_cores = 1;     // in the affinity mask
  int physical_cores = 1;    // distinct cores behind them
  std::vector<Cache> caches; // by level, as the first CPU of the mask sees them
  std::vector<std::string> isa;
  int simd_bytes = 8;        // widest vector register that is usable
  std::int64_t page_bytes = 4096;
  std::int64_t huge_page_bytes = 0;  // 0: none
  std::string huge_pages;            // "always", "madvise", "never", "" when unknown
};

Probe probe();

}  // namespace perfkit
