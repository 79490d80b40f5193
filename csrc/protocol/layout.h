// Where everything lies in one rank's part of a symmetric heap. Every rank's part has the same
// layout, so an offset names the same thing on all of them.
//
//   header | flags [source][frame][subtile] | acks [destination][slot] | slot 0 | slot 1
//
// Every word that another rank polls has a cache line of its own: two ranks that write
// neighbouring words would otherwise take the line from each other on every store.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define PERFKIT_PROTOCOL __host__ __device__ inline
#else
#define PERFKIT_PROTOCOL inline
#endif

namespace perfkit::protocol {

constexpr std::uint64_t kMagic = 0x70656b7068656170ull;  // "pekpheap"
constexpr std::uint64_t kVersion = 1;
constexpr std::uint64_t kLine = 64;
constexpr std::uint64_t kPage = 4096;
constexpr std::uint32_t kSlots = 2;
constexpr std::uint32_t kMaxRanks = 64;  // the bits of Header::joined

// One polled word. `waiters` counts the sleepers of a host rank; the GPU never looks at it.
struct alignas(kLine) Word {
  std::uint64_t value;
  std::uint32_t waiters;
  std::uint32_t unused[13];
};
static_assert(sizeof(Word) == kLine, "one word, one line");

// Written by the owner before anybody else can see the segment, except for the three words.
struct alignas(kLine) Header {
  std::uint64_t magic, version;
  std::uint64_t bytes;        // of the whole segment
  std::uint64_t generation;   // a heap of another generation is another heap
  std::uint64_t owner, born;  // the process: its id and its start time (ids are reused)
  std::uint64_t space;        // the process-id namespace that `owner` is a number of
  std::uint64_t slot_bytes;
  std::uint32_t ranks, rank, frames, subtiles;
  Word epoch;   // the operation in progress; only the owner writes it
  Word abort;   // 0, or why the heap is dead; anybody may set it, the first reason stays
  Word joined;  // bit r: rank r has mapped this segment
};

struct Layout {
  std::uint32_t ranks = 1, frames = 1, subtiles = 1;
  std::uint64_t slot_bytes = 0;

  PERFKIT_PROTOCOL std::uint64_t flags() const { return sizeof(Header); }
  PERFKIT_PROTOCOL std::uint64_t acks() const {
    return flags() + std::uint64_t{ranks} * frames * subtiles * sizeof(Word);
  }
  PERFKIT_PROTOCOL std::uint64_t data() const {
    const std::uint64_t end = acks() + std::uint64_t{ranks} * kSlots * sizeof(Word);
    return (end + kPage - 1) / kPage * kPage;
  }
  // Slots begin on pages, so that a device can register or map them one by one.
  PERFKIT_PROTOCOL std::uint64_t slot_stride() const {
    return (slot_bytes + kPage - 1) / kPage * kPage;
  }
  PERFKIT_PROTOCOL std::uint64_t slot(std::uint64_t epoch) const {
    return data() + epoch % kSlots * slot_stride();
  }
  PERFKIT_PROTOCOL std::uint64_t bytes() const { return data() + kSlots * slot_stride(); }

  PERFKIT_PROTOCOL std::uint64_t flag(std::uint32_t source, std::uint32_t frame,
                                      std::uint32_t subtile) const {
    const std::uint64_t index = (std::uint64_t{source} * frames + frame) * subtiles + subtile;
    return flags() + index * sizeof(Word);
  }
  PERFKIT_PROTOCOL std::uint64_t ack(std::uint32_t destination, std::uint64_t epoch) const {
    return acks() + (std::uint64_t{destination} * kSlots + epoch % kSlots) * sizeof(Word);
  }
};

// Epochs only grow and may pass 2^64: compared by their distance, like TCP sequence numbers.
PERFKIT_PROTOCOL bool reached(std::uint64_t seen, std::uint64_t wanted) {
  return static_cast<std::int64_t>(seen - wanted) >= 0;
}

}  // namespace perfkit::protocol
