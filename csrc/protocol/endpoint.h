// The flag machine: what one rank may do with the heaps of all ranks, and in which order.
//
// An operation has an epoch, one more than the last. Its data lie in slot `epoch % 2` of some
// rank's heap. Source and destination agree through two words, each written by one side only:
//
//   source:       wait_free(d): ack[d][slot] >= epoch - 2   the slot's last contents were read
//                 ... store the data ...
//                 publish(d, f, t): flag[source][f][t] = epoch in d's heap, release
//   destination:  wait_data(s, f, t): flag[s][f][t] >= epoch in its own heap, acquire
//                 ... load the data ...
//                 acknowledge(s): ack[destination][slot] = epoch in s's heap, release
//
// It does not matter whose slot holds the data: with push it is the destination's (the region
// belongs to one source), with pull the source's. Flags and acks are never cleared, so there is
// no clearing race, and an epoch that does not use a flag simply leaves it behind. Epochs live in
// memory, so a captured CUDA graph replays. Every rank issues the same sequence of operations.
//
// Waits are bounded. The first rank to run out of patience writes the abort word of every heap;
// from then on every wait on every rank ends with Status::aborted.
//
// `Memory` gives the loads, stores and waiting of a platform:
//   static  load_relaxed(const Word&) / load_acquire(const Word&) -> value
//   static  store_relaxed(Word&, value), store_release(Word&, value)   and wake sleepers
//   static  bool claim(Word&, value)        0 -> value by compare-and-swap, and wake sleepers
//   class   Wait(timeout_ns[, longest_sleep_ns]): bool again(Word&, seen)   false: time is over
#pragma once

#include <cstdint>

#include "protocol/layout.h"

namespace perfkit::protocol {

enum class Status : std::int32_t { ok = 0, timeout = 1, aborted = 2 };
enum class Reason : std::uint32_t { none = 0, data = 1, slot = 2, joining = 3, user = 4 };

// What an abort word says: who gave up, waiting for whom, and for what.
struct Abort {
  Reason reason = Reason::none;
  std::uint32_t by = 0, waited_for = 0;

  PERFKIT_PROTOCOL std::uint64_t pack() const {
    return std::uint64_t{static_cast<std::uint32_t>(reason)} << 48 | std::uint64_t{by} << 24 |
           waited_for;
  }
  static PERFKIT_PROTOCOL Abort unpack(std::uint64_t word) {
    return {static_cast<Reason>(word >> 48), static_cast<std::uint32_t>(word >> 24 & 0xffffff),
            static_cast<std::uint32_t>(word & 0xffffff)};
  }
};

template <class Memory>
class Endpoint {
 public:
  // `bases[r]` is where rank r's heap begins in this rank's address space.
  PERFKIT_PROTOCOL Endpoint(const Layout& layout, std::uint32_t rank, char* const* bases,
                            std::int64_t timeout_ns)
      : layout_(layout), rank_(rank), bases_(bases), timeout_ns_(timeout_ns) {}

  PERFKIT_PROTOCOL const Layout& layout() const { return layout_; }
  PERFKIT_PROTOCOL std::uint32_t rank() const { return rank_; }
  PERFKIT_PROTOCOL std::uint64_t epoch() const {
    return Memory::load_relaxed(header(rank_).epoch);  // written by this rank alone
  }

  // Starts the next operation.
  PERFKIT_PROTOCOL std::uint64_t begin() {
    const std::uint64_t next = epoch() + 1;
    Memory::store_relaxed(header(rank_).epoch, next);
    return next;
  }

  PERFKIT_PROTOCOL Status wait_free(std::uint32_t destination, std::uint64_t epoch) {
    Word& word = word_at(rank_, layout_.ack(destination, epoch));
    return wait(word, epoch - kSlots, destination, Reason::slot);
  }
  PERFKIT_PROTOCOL void publish(std::uint32_t destination, std::uint64_t epoch,
                                std::uint32_t frame, std::uint32_t subtile) {
    Memory::store_release(word_at(destination, layout_.flag(rank_, frame, subtile)), epoch);
  }
  PERFKIT_PROTOCOL bool data_ready(std::uint32_t source, std::uint64_t epoch, std::uint32_t frame,
                                   std::uint32_t subtile) const {
    return reached(Memory::load_acquire(word_at(rank_, layout_.flag(source, frame, subtile))),
                   epoch);
  }
  PERFKIT_PROTOCOL Status wait_data(std::uint32_t source, std::uint64_t epoch,
                                    std::uint32_t frame, std::uint32_t subtile) {
    Word& word = word_at(rank_, layout_.flag(source, frame, subtile));
    return wait(word, epoch, source, Reason::data);
  }
  // Waits until ready(), which other flags may decide as well as this one.
  template <class Ready>
  Status wait_until(const Ready& ready, std::uint32_t source, std::uint32_t frame,
                    std::uint32_t subtile) {
    Word& word = word_at(rank_, layout_.flag(source, frame, subtile));
    typename Memory::Wait patience(timeout_ns_, kGlance);
    for (;;) {
      const std::uint64_t seen = Memory::load_acquire(word);
      if (Memory::load_acquire(header(rank_).abort) != 0) return Status::aborted;
      if (ready()) return Status::ok;
      if (!patience.again(word, seen)) {
        abort(Reason::data, source);
        return Status::timeout;
      }
    }
  }
  PERFKIT_PROTOCOL void acknowledge(std::uint32_t source, std::uint64_t epoch) {
    Memory::store_release(word_at(source, layout_.ack(rank_, epoch)), epoch);
  }

  PERFKIT_PROTOCOL Abort aborted() const {
    return Abort::unpack(Memory::load_acquire(header(rank_).abort));
  }
  // Ends every wait on every rank. The first reason stays.
  PERFKIT_PROTOCOL void abort(Reason reason, std::uint32_t waited_for) {
    const Abort why{reason, rank_, waited_for};
    for (std::uint32_t rank = 0; rank < layout_.ranks; ++rank)
      Memory::claim(header(rank).abort, why.pack());
  }

  // A rank's data, at `offset` bytes into the slot of an epoch.
  PERFKIT_PROTOCOL char* data(std::uint32_t rank, std::uint64_t epoch,
                              std::uint64_t offset = 0) const {
    return bases_[rank] + layout_.slot(epoch) + offset;
  }

 private:
  static constexpr std::int64_t kGlance = 100'000;  // ns asleep on one flag of several

  PERFKIT_PROTOCOL Header& header(std::uint32_t rank) const {
    return *reinterpret_cast<Header*>(bases_[rank]);
  }
  PERFKIT_PROTOCOL Word& word_at(std::uint32_t rank, std::uint64_t offset) const {
    return *reinterpret_cast<Word*>(bases_[rank] + offset);
  }

  PERFKIT_PROTOCOL Status wait(Word& word, std::uint64_t wanted, std::uint32_t other,
                               Reason reason) {
    typename Memory::Wait patience(timeout_ns_);
    for (;;) {
      const std::uint64_t seen = Memory::load_acquire(word);
      // Abort first: data that arrived on a dead heap must not look like success on some ranks
      // and failure on others for longer than it takes the word to travel.
      if (Memory::load_acquire(header(rank_).abort) != 0) return Status::aborted;
      if (reached(seen, wanted)) return Status::ok;
      if (!patience.again(word, seen)) {
        abort(reason, other);
        return Status::timeout;
      }
    }
  }

  Layout layout_;
  std::uint32_t rank_;
  char* const* bases_;
  std::int64_t timeout_ns_;
};

}  // namespace perfkit::protocol
