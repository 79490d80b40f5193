#include "cpu/heap.h"

#include "protocol/host_memory.h"

namespace perfkit {

using protocol::Header;
using protocol::Layout;
using protocol::Word;

void initialise(char* base, const Layout& layout, const HeapInit& init) {
  auto* header = reinterpret_cast<Header*>(base);
  *header = Header{};
  header->magic = protocol::kMagic;
  header->version = protocol::kVersion;
  header->bytes = layout.bytes();
  header->generation = init.generation;
  header->owner = init.owner;
  header->born = init.born;
  header->space = init.space;
  header->slot_bytes = layout.slot_bytes;
  header->ranks = layout.ranks;
  header->rank = init.rank;
  header->frames = layout.frames;
  header->subtiles = layout.subtiles;
  header->epoch.value = init.first_epoch;
  auto* words = reinterpret_cast<Word*>(base + layout.flags());
  const std::uint64_t count =
      std::uint64_t{layout.ranks} * (std::uint64_t{layout.frames} * layout.subtiles +
                                     protocol::kSlots);
  for (std::uint64_t i = 0; i < count; ++i) {
    words[i] = Word{};
    words[i].value = init.first_epoch;
  }
}

HeapFacts inspect(const char* base, std::uint64_t bytes) {
  HeapFacts facts;
  if (bytes < sizeof(Header)) return facts;
  const auto& header = *reinterpret_cast<const Header*>(base);
  if (header.magic != protocol::kMagic || header.version != protocol::kVersion) return facts;
  facts.layout = {header.ranks, header.frames, header.subtiles, header.slot_bytes};
  facts.rank = header.rank;
  facts.generation = header.generation;
  facts.owner = header.owner;
  facts.born = header.born;
  facts.space = header.space;
  facts.joined = protocol::HostMemory::load_acquire(header.joined);
  facts.valid = header.bytes == bytes && facts.layout.bytes() == bytes;
  return facts;
}

void announce_joined(char* base, std::uint32_t rank) {
  __atomic_fetch_or(&reinterpret_cast<Header*>(base)->joined.value, std::uint64_t{1} << rank,
                    __ATOMIC_ACQ_REL);
}

}  // namespace perfkit
