#include "cpu/timer.h"

#include <chrono>

namespace perfkit {

std::int64_t now_ns() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}

Timing time_calls(KernelFunction function, void** arguments, int repeats, std::int64_t limit_ns) {
  Timing timing;
  timing.nanoseconds.reserve(repeats > 0 ? repeats : 0);
  const std::int64_t begin = now_ns();
  for (int i = 0; i < repeats; ++i) {
    const std::int64_t start = now_ns();
    timing.code = function(arguments);
    const std::int64_t stop = now_ns();
    if (timing.code != 0) break;
    timing.nanoseconds.push_back(stop - start);
    if (limit_ns > 0 && stop - begin >= limit_ns) break;
  }
  return timing;
}

}  // namespace perfkit
