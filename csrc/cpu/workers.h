// Threads for one call, and memory for them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include <dlfcn.h>

namespace perfkit {

struct Free {
  void operator()(char* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<char, Free>;

constexpr std::int64_t rounded(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }

inline Memory aligned(std::int64_t bytes) {
  auto* memory = static_cast<char*>(std::aligned_alloc(64, rounded(bytes) + 64));
  if (memory == nullptr) throw std::bad_alloc();
  return Memory(memory);
}

// libgomp's entry point, which LLVM's OpenMP has too, if this process has it in its global scope,
// as torch's is. Its threads are kept from call to call and, after a region, spin for a while: on
// a machine with as many threads as cores, new ones beside them would get half a core.
using OpenMP = void (*)(void (*)(void*), void*, unsigned, unsigned);
inline OpenMP openmp() { return reinterpret_cast<OpenMP>(dlsym(RTLD_DEFAULT, "GOMP_parallel")); }

// Calls work(worker) on up to `threads` threads, with this one among them. Workers count from 0;
// `work` must do everything however few come, and throw nothing.
template <class Work>
void together(int threads, const Work& work) {
  if (threads <= 1) return work(0);
  if (const OpenMP parallel = openmp()) {
    struct Region {
      const Work& work;
      std::atomic<int> workers{0};
    } region{work};
    const auto enter = [](void* data) {
      auto* here = static_cast<Region*>(data);
      here->work(here->workers++);
    };
    return parallel(enter, &region, static_cast<unsigned>(threads), 0);
  }
  std::vector<std::thread> others;
  others.reserve(threads - 1);
  try {
    for (int worker = 1; worker < threads; ++worker) others.emplace_back(work, worker);
  } catch (const std::system_error&) {
    // No more threads to be had: those that run, and this one, do it all.
  }
  work(0);
  for (std::thread& other : others) other.join();
}

// Calls task(index, worker) for every index. Which thread runs an index changes nothing in its
// result.
template <class Task>
void share(int threads, std::int64_t count, const Task& task) {
  std::atomic<std::int64_t> next{0};
  together(static_cast<int>(std::min<std::int64_t>(threads, count)), [&](int worker) {
    for (std::int64_t index = next++; index < count; index = next++) task(index, worker);
  });
}

}  // namespace perfkit
