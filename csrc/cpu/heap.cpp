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

void announce_joined(char* base) {
  __atomic_fetch_add(&reinterpret_cast<Header*>(base)->joined.value, 1, __ATOMIC_ACQ_REL);
}

std::uint64_t joined(const char* base) {
  return protocol::HostMemory::load_acquire(reinterpret_cast<const Header*>(base)->joined);
}

}  // namespace perfkit
