// Ranks as threads of one process, for the sanitizers: ThreadSanitizer sees the plain data
// accesses and the atomics of the flag machine, and so every missing release or acquire.
//
//   ranks <mode> <trials> <seed>
//     push, pull   random ranks, shapes, delays, orders and first epochs, every byte checked
//     killed       one rank stops somewhere: every survivor must report it
//     relaxed      push with relaxed loads where acquire belongs: the sanitizer must object
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cpu/heap.h"
#include "protocol/endpoint.h"
#include "protocol/host_memory.h"

namespace {

using namespace perfkit::protocol;

struct RelaxedMemory : HostMemory {
  static std::uint64_t load_acquire(const Word& word) { return load_relaxed(word); }
};

struct Trial {
  Layout layout;
  std::uint64_t first_epoch;
  int epochs;
  bool push;
  int victim = -1, victim_epoch = 0;
  unsigned seed;
  std::int64_t timeout_ns = 20'000'000'000;
};

unsigned char expected(unsigned seed, std::uint32_t source, std::uint32_t destination,
                       std::uint64_t epoch, std::uint64_t at) {
  std::uint64_t x = seed + source * 131u + destination * 31u + epoch * 977u + at * 2654435761u;
  x ^= x >> 15;
  return static_cast<unsigned char>(x * 0x9e3779b1u >> 11);
}

// Bytes of a slot that belong to one (source, destination) pair.
std::uint64_t share(const Layout& layout) { return layout.slot_bytes / layout.ranks; }

void delay(std::mt19937& random) {
  const unsigned kind = random() % 32;
  if (kind == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
  if (kind < 4) std::this_thread::yield();
}

template <class Memory>
Status run_rank(const Trial& trial, std::uint32_t rank, char* const* bases,
                std::atomic<int>& mismatches) {
  Endpoint<Memory> me(trial.layout, rank, bases, trial.timeout_ns);
  std::mt19937 random(trial.seed * 1000 + rank);
  const Layout& layout = me.layout();
  const std::uint64_t tiles = std::uint64_t{layout.frames} * layout.subtiles;
  std::vector<std::uint64_t> order;
  for (std::uint64_t i = 0; i < layout.ranks * tiles; ++i) order.push_back(i);
  // Tile t of a pair covers bytes [t, t + 1) * share / tiles: shares need not divide evenly.
  const auto begin_of = [&](std::uint64_t tile) { return tile * share(layout) / tiles; };

  for (int step = 0; step < trial.epochs; ++step) {
    if (static_cast<int>(rank) == trial.victim && step == trial.victim_epoch) return Status::ok;
    const std::uint64_t epoch = me.begin();
    std::shuffle(order.begin(), order.end(), random);
    for (std::uint64_t item : order) {
      const auto other = static_cast<std::uint32_t>(item / tiles);
      const std::uint64_t tile = item % tiles;
      if (const Status status = me.wait_free(other, epoch); status != Status::ok) return status;
      delay(random);
      char* to = trial.push ? me.data(other, epoch, rank * share(layout))
                            : me.data(rank, epoch, other * share(layout));
      for (std::uint64_t at = begin_of(tile); at < begin_of(tile + 1); ++at)
        to[at] = static_cast<char>(expected(trial.seed, rank, other, epoch, at));
      me.publish(other, epoch, static_cast<std::uint32_t>(tile / layout.subtiles),
                 static_cast<std::uint32_t>(tile % layout.subtiles));
    }
    std::shuffle(order.begin(), order.end(), random);
    std::vector<std::uint64_t> left(layout.ranks, tiles);
    for (std::uint64_t item : order) {
      const auto other = static_cast<std::uint32_t>(item / tiles);
      const std::uint64_t tile = item % tiles;
      const Status status =
          me.wait_data(other, epoch, static_cast<std::uint32_t>(tile / layout.subtiles),
                       static_cast<std::uint32_t>(tile % layout.subtiles));
      if (status != Status::ok) return status;
      const char* from = trial.push ? me.data(rank, epoch, other * share(layout))
                                    : me.data(other, epoch, rank * share(layout));
      for (std::uint64_t at = begin_of(tile); at < begin_of(tile + 1); ++at)
        if (static_cast<unsigned char>(from[at]) !=
            expected(trial.seed, other, rank, epoch, at))
          ++mismatches;
      delay(random);
      if (--left[other] == 0) me.acknowledge(other, epoch);
    }
  }
  return Status::ok;
}

template <class Memory>
bool run_trial(const Trial& trial) {
  std::vector<char*> bases;
  for (std::uint32_t rank = 0; rank < trial.layout.ranks; ++rank) {
    const std::uint64_t bytes = trial.layout.bytes();
    auto* base = static_cast<char*>(std::aligned_alloc(kPage, bytes));
    std::memset(base, 0xa5, bytes);  // poison: nothing may be read before it is written
    perfkit::HeapInit init;
    init.rank = rank;
    init.first_epoch = trial.first_epoch;
    perfkit::initialise(base, trial.layout, init);
    bases.push_back(base);
  }
  std::atomic<int> mismatches{0};
  std::vector<Status> results(trial.layout.ranks);
  std::vector<std::thread> threads;
  for (std::uint32_t rank = 0; rank < trial.layout.ranks; ++rank)
    threads.emplace_back([&, rank] {
      results[rank] = run_rank<Memory>(trial, rank, bases.data(), mismatches);
    });
  for (std::thread& thread : threads) thread.join();
  bool good = mismatches == 0;
  int timeouts = 0;
  for (std::uint32_t rank = 0; rank < trial.layout.ranks; ++rank) {
    const bool survivor = static_cast<int>(rank) != trial.victim;
    const bool failed = results[rank] != Status::ok;
    good = good && failed == (trial.victim >= 0 && survivor);
    timeouts += results[rank] == Status::timeout;
    if (failed) {
      Endpoint<HostMemory> me(trial.layout, rank, bases.data(), 0);
      const Abort why = me.aborted();
      good = good && why.reason != Reason::none && why.by < trial.layout.ranks;
    }
  }
  good = good && (timeouts > 0) == (trial.victim >= 0);
  if (!good) std::printf("seed %u: %d mismatches\n", trial.seed, mismatches.load());
  for (char* base : bases) std::free(base);
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const std::string mode = argv[1];
  const int trials = std::atoi(argv[2]);
  const auto first = static_cast<unsigned>(std::atoi(argv[3]));
  for (int i = 0; i < trials; ++i) {
    std::mt19937 random(first + static_cast<unsigned>(i));
    Trial trial;
    trial.seed = first + static_cast<unsigned>(i);
    trial.layout.ranks = 2 + random() % 4;
    trial.layout.frames = 1 + random() % 3;
    trial.layout.subtiles = 1 + random() % 3;
    trial.layout.slot_bytes = random() % 5 == 0 ? 0 : random() % 5000;
    const std::uint64_t starts[] = {0, ~0ull - 2, 0xfffffffdull, 0x7ffffffffffffffdull};
    trial.first_epoch = starts[random() % 4];
    trial.epochs = 1 + static_cast<int>(random() % 7);
    trial.push = mode == "pull" ? false : mode == "push" || random() % 2 == 0;
    if (mode == "killed") {
      // Not in the last operation: nobody would wait for what comes after it.
      trial.victim = static_cast<int>(random() % trial.layout.ranks);
      trial.victim_epoch = static_cast<int>(random() % static_cast<unsigned>(trial.epochs));
      trial.timeout_ns = 30'000'000;
    }
    if (mode == "relaxed") trial.layout.slot_bytes = 4000;
    const bool good =
        mode == "relaxed" ? run_trial<RelaxedMemory>(trial) : run_trial<HostMemory>(trial);
    if (!good) return 1;
  }
  std::printf("%d trials\n", trials);
  return 0;
}
