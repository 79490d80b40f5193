// A monotonic clock, and timing of a compiled kernel without Python between the clock reads.
#pragma once

#include <cstdint>
#include <vector>

namespace perfkit {

// The entry point of every generated kernel; 0 means success.
using KernelFunction = std::int64_t (*)(void** arguments);

std::int64_t now_ns();

struct Timing {
  std::vector<std::int64_t> nanoseconds;  // one per completed call
  std::int64_t code = 0;                  // the first non-zero return, which ends the series
};

// Calls `function` up to `repeats` times; stops early once `limit_ns` were spent (0: no limit).
Timing time_calls(KernelFunction function, void** arguments, int repeats, std::int64_t limit_ns);

}  // namespace perfkit
