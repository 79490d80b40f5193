// One rank's segment of a symmetric heap on the CPU: writing its header, reading a peer's.
// Where the memory comes from (POSIX shared memory, plain allocation) is the caller's business.
#pragma once

#include <cstdint>

#include "protocol/layout.h"

namespace perfkit {

struct HeapInit {
  std::uint32_t rank = 0;
  std::uint64_t generation = 0;
  std::uint64_t owner = 0, born = 0, space = 0;
  std::uint64_t first_epoch = 0;  // of every flag and ack; tests start near the wrap
};

// Makes `base` (aligned to a cache line, layout.bytes() long) a segment that peers may see.
// The data slots are left as they are.
void initialise(char* base, const protocol::Layout& layout, const HeapInit& init);

// A header as another process finds it; `valid` is false when there is none (yet).
struct HeapFacts {
  bool valid = false;
  protocol::Layout layout;
  std::uint32_t rank = 0;
  std::uint64_t generation = 0, owner = 0, born = 0, space = 0, joined = 0;
};
HeapFacts inspect(const char* base, std::uint64_t bytes);

// Says that `rank` has mapped the segment.
void announce_joined(char* base, std::uint32_t rank);

}  // namespace perfkit
