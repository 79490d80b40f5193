// One rank's use of the heaps of all ranks, as Python holds it.
#pragma once

#include <cstdint>
#include <vector>

#include "protocol/endpoint.h"
#include "protocol/host_memory.h"

namespace perfkit {

class HeapEndpoint {
 public:
  HeapEndpoint(std::uint32_t ranks, std::uint32_t frames, std::uint32_t subtiles,
               std::uint64_t slot_bytes, std::uint32_t rank,
               const std::vector<std::uintptr_t>& bases, std::int64_t timeout_ns);
  HeapEndpoint(const HeapEndpoint&) = delete;
  HeapEndpoint& operator=(const HeapEndpoint&) = delete;

  protocol::Endpoint<protocol::HostMemory>& native() { return endpoint_; }
  const protocol::Endpoint<protocol::HostMemory>& native() const { return endpoint_; }
  // Raise IndexError.
  void check_rank(std::uint32_t rank) const;
  void check(std::uint32_t rank, std::uint32_t frame, std::uint32_t subtile) const;

 private:
  std::vector<char*> bases_;
  protocol::Endpoint<protocol::HostMemory> endpoint_;
};

}  // namespace perfkit
