// The machine of csrc/cuda/platform.h on a CPU: a block's threads are fibers of one thread, and
// the warp's instructions happen when all 32 lanes have come to the same one.
//
// Stricter than a GPU where a GPU is merely lucky: shared memory starts as NaNs, asynchronous
// copies arrive as late as their group may, warps run in random order, two warps that touch the
// same 16 bytes without a barrier in between are a race, and a matrix load with a bank conflict is
// counted. Global memory is the program's own, so AddressSanitizer checks it.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/element.h"
#include "cuda/fragment.h"
#include "protocol/host_memory.h"

namespace emulated {

struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

constexpr int kWarp = 32;
constexpr std::uint16_t kPoison = 0xffff;  // a NaN in both element types

class Block {
 public:
  Block(int threads, int shared_bytes, int index, unsigned seed)
      : index_(index), random_(seed), memory_(shared_bytes / 2 + 8, kPoison), lanes_(threads),
        warps_(threads / kWarp), granules_(shared_bytes / 16 + 1) {
    base_ = reinterpret_cast<char*>(memory_.data());
    while (reinterpret_cast<std::uintptr_t>(base_) % 16 != 0) ++base_;
    end_ = base_ + shared_bytes;
  }

  // Runs `body` once per thread; throws what a thread threw, or Fault.
  void run(const std::function<void()>& body) {
    current_ = this;
    body_ = &body;
    for (Lane& lane : lanes_) {
      lane.stack.reset(new char[kStack]);
      getcontext(&lane.context);
      lane.context.uc_stack.ss_sp = lane.stack.get();
      lane.context.uc_stack.ss_size = kStack;
      lane.context.uc_link = nullptr;
      makecontext(&lane.context, &Block::enter, 0);
    }
    for (;;) {
      std::vector<int> able;
      bool all_done = true;
      for (int warp = 0; warp < static_cast<int>(warps_.size()); ++warp) {
        bool runs = false;
        for (int lane = warp * kWarp; lane < (warp + 1) * kWarp; ++lane) {
          all_done = all_done && lanes_[lane].done;
          runs = runs || can_run(lanes_[lane]);
        }
        if (runs) able.push_back(warp);
      }
      if (all_done) break;
      if (able.empty()) throw Fault("every thread waits for another");
      const int warp = able[random_() % able.size()];
      for (int lane = warp * kWarp; lane < (warp + 1) * kWarp; ++lane)
        if (can_run(lanes_[lane])) resume(lane);
    }
    for (const Lane& lane : lanes_)
      for (const auto& group : lane.groups)
        if (!group.empty()) throw Fault("a copy was never waited for");
  }

  static Block& now() { return *current_; }
  int thread() const { return lane_; }
  int index() const { return index_; }
  char* shared() const { return base_; }
  int threads() const { return static_cast<int>(lanes_.size()); }
  int bank_conflicts = 0;

  // All lanes of the warp (or of the block) meet; the last one does `work` for all of them.
  void meet(bool of_block, const char* what, void* mine,
            const std::function<void(void* const*)>& work) {
    Meeting& place = of_block ? block_ : warps_[lane_ / kWarp];
    const int size = of_block ? static_cast<int>(lanes_.size()) : kWarp;
    if (place.arrived == 0) {
      place.what = what;
      place.arguments.assign(size, nullptr);
    } else if (std::strcmp(place.what, what) != 0) {
      throw Fault(std::string("lanes diverge: ") + place.what + " and " + what);
    }
    place.arguments[of_block ? lane_ : lane_ % kWarp] = mine;
    if (++place.arrived == size) {
      work(place.arguments.data());
      place.arrived = 0;
      ++place.generation;
      return;
    }
    Lane& self = lanes_[lane_];
    self.place = &place;
    self.generation = place.generation;
    swapcontext(&self.context, &scheduler_);
    self.place = nullptr;
  }
  // Gives the others a turn.
  void yield() { swapcontext(&lanes_[lane_].context, &scheduler_); }
  void next_interval() { ++interval_; }

  // A read or write of [at, at + bytes) of shared memory by the running thread.
  void touch(const char* at, int bytes, bool write) { touch_as(lane_, at, bytes, write); }

  struct Copy {
    char* to;
    const void* from;
    int bytes;
    bool valid;
  };
  void copy(const Copy& c) {
    check(c.to, c.bytes);
    if (reinterpret_cast<std::uintptr_t>(c.to) % c.bytes != 0 ||
        (c.valid && reinterpret_cast<std::uintptr_t>(c.from) % c.bytes != 0))
      throw Fault("a misaligned asynchronous copy");
    touch(c.to, c.bytes, true);
    std::memset(c.to, 0xff, static_cast<std::size_t>(c.bytes));
    lanes_[lane_].open.push_back(c);
  }
  void commit() {
    Lane& self = lanes_[lane_];
    self.groups.push_back(std::move(self.open));
    self.open.clear();
  }
  void wait(int newest) {
    Lane& self = lanes_[lane_];
    while (static_cast<int>(self.groups.size()) > newest) {
      for (const Copy& c : self.groups.front()) {
        if (c.valid)
          std::memcpy(c.to, c.from, static_cast<std::size_t>(c.bytes));
        else
          std::memset(c.to, 0, static_cast<std::size_t>(c.bytes));
        touch(c.to, c.bytes, true);
      }
      self.groups.pop_front();
    }
  }
  void touch_as(int thread, const char* at, int bytes, bool write) {
    check(at, bytes);
    const int warp = thread / kWarp;
    const auto first = (at - base_) / 16, last = (at + bytes - 1 - base_) / 16;
    for (auto i = first; i <= last; ++i) {
      Granule& g = granules_[static_cast<std::size_t>(i)];
      if (g.written == interval_ && g.writer != warp)
        throw Fault("two warps use the same shared memory without a barrier");
      if (write) {
        if (g.read == interval_ && (g.reader != warp || g.readers > 1))
          throw Fault("a warp overwrites what another one reads");
        g.written = interval_;
        g.writer = warp;
      } else {
        if (g.read != interval_) g.readers = 0;
        if (g.readers == 0 || g.reader != warp) ++g.readers;
        g.read = interval_;
        g.reader = warp;
      }
    }
  }

 private:
  static constexpr std::size_t kStack = 128 * 1024;

  struct Meeting {
    const char* what = "";
    int arrived = 0;
    long generation = 0;
    std::vector<void*> arguments;
  };
  struct Lane {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    bool done = false;
    const Meeting* place = nullptr;
    long generation = 0;
    std::vector<Copy> open;
    std::deque<std::vector<Copy>> groups;
  };
  struct Granule {
    long written = -1, read = -1;
    int writer = -1, reader = -1, readers = 0;
  };

  static bool can_run(const Lane& lane) {
    return !lane.done && (lane.place == nullptr || lane.place->generation != lane.generation);
  }
  void check(const char* at, int bytes) const {
    if (at < base_ || at + bytes > end_) throw Fault("outside of shared memory");
  }
  void resume(int lane) {
    lane_ = lane;
    swapcontext(&scheduler_, &lanes_[lane].context);
    if (failure_) std::rethrow_exception(failure_);
  }
  static void enter() {
    Block& block = *current_;
    try {
      (*block.body_)();
    } catch (...) {
      block.failure_ = std::current_exception();
    }
    block.lanes_[block.lane_].done = true;
    swapcontext(&block.lanes_[block.lane_].context, &block.scheduler_);
  }

  static inline thread_local Block* current_ = nullptr;
  int index_;
  std::mt19937 random_;
  std::vector<std::uint16_t> memory_;
  char *base_, *end_;
  std::vector<Lane> lanes_;
  std::vector<Meeting> warps_;
  Meeting block_;
  std::vector<Granule> granules_;
  long interval_ = 0;  // between two barriers of the block
  int lane_ = 0;
  ucontext_t scheduler_;
  const std::function<void()>* body_ = nullptr;
  std::exception_ptr failure_;
};

struct Machine {
  using Shared = char*;
  using Memory = perfkit::protocol::HostMemory;

  static int thread() { return Block::now().thread(); }
  static int block() { return Block::now().index(); }
  static void sync() {
    Block::now().meet(true, "sync", nullptr, [](void* const*) { Block::now().next_interval(); });
  }
  static void sync_warp() {
    Block::now().meet(false, "sync_warp", nullptr, [](void* const*) {});
  }
  static bool any(bool value) {
    Block::now().meet(true, "any", &value, [](void* const* values) {
      bool found = false;
      for (int i = 0; i < Block::now().threads(); ++i)
        found = found || *static_cast<bool*>(values[i]);
      for (int i = 0; i < Block::now().threads(); ++i) *static_cast<bool*>(values[i]) = found;
      Block::now().next_interval();
    });
    return value;
  }

  static void copy_async16(Shared to, const void* from, bool valid) {
    Block::now().copy({to, from, 16, valid});
  }
  static void copy_async4(Shared to, const void* from, bool valid) {
    Block::now().copy({to, from, 4, valid});
  }
  static void commit_async() { Block::now().commit(); }
  template <int kNewest>
  static void wait_async() {
    Block::now().wait(kNewest);
  }

  static void store16(Shared to, const std::uint32_t (&words)[4]) { store(to, words, 16); }
  static void load16(std::uint32_t (&words)[4], Shared from) { load(words, from, 16); }
  static void store4(Shared to, std::uint32_t word) { store(to, &word, 4); }
  static std::uint32_t load4(Shared from) {
    std::uint32_t word;
    load(&word, from, 4);
    return word;
  }
  static void store_global16(void* to, const std::uint32_t (&words)[4]) {
    if (reinterpret_cast<std::uintptr_t>(to) % 16 != 0) throw Fault("a misaligned store");
    std::memcpy(to, words, 16);
  }

  static void copy_global16(void* to, const void* from) { std::memcpy(to, from, 16); }
  static std::uint32_t add(std::uint32_t* counter, std::uint32_t by) {
    const std::uint32_t before = *counter;
    *counter += by;
    return before;
  }
  static void clear(std::uint32_t* counter) { *counter = 0; }

  static void ldmatrix4(std::uint32_t (&r)[4], Shared from) { matrices(r, 4, from, false); }
  static void ldmatrix4_t(std::uint32_t (&r)[4], Shared from) { matrices(r, 4, from, true); }
  static void ldmatrix2_t(std::uint32_t (&r)[2], Shared from) { matrices(r, 2, from, true); }

  // D = A B + C with the layouts of PTX ISA's figures for mma.m16n8k16.
  template <class Element>
  static void mma(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                  std::uint32_t b1) {
    struct Arguments {
      float* c;
      const std::uint32_t* a;
      std::uint32_t b[2];
    } mine{c, a, {b0, b1}};
    Block::now().meet(false, "mma", &mine, [](void* const* given) {
      float left[16][16], right[16][8];
      const auto half = [](std::uint32_t word, int which) {
        return Element::widen(static_cast<std::uint16_t>(word >> 16 * which));
      };
      for (int lane = 0; lane < kWarp; ++lane) {
        const auto& arguments = *static_cast<Arguments*>(given[lane]);
        const int group = lane / 4, pair = lane % 4 * 2;
        for (int e = 0; e < 2; ++e) {
          left[group][pair + e] = half(arguments.a[0], e);
          left[group + 8][pair + e] = half(arguments.a[1], e);
          left[group][pair + 8 + e] = half(arguments.a[2], e);
          left[group + 8][pair + 8 + e] = half(arguments.a[3], e);
          right[pair + e][group] = half(arguments.b[0], e);
          right[pair + 8 + e][group] = half(arguments.b[1], e);
        }
      }
      for (int lane = 0; lane < kWarp; ++lane) {
        const auto& arguments = *static_cast<Arguments*>(given[lane]);
        for (int e = 0; e < 4; ++e) {
          const int row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
          float sum = arguments.c[e];
          for (int k = 0; k < 16; ++k) sum += left[row][k] * right[k][column];
          arguments.c[e] = sum;
        }
      }
    });
  }

  static float shuffle_xor(float value, int mask) {
    struct Arguments {
      float in, out;
      int mask;
    } mine{value, 0.0f, mask};
    Block::now().meet(false, "shuffle", &mine, [](void* const* given) {
      for (int lane = 0; lane < kWarp; ++lane) {
        auto& arguments = *static_cast<Arguments*>(given[lane]);
        arguments.out = static_cast<Arguments*>(given[lane ^ arguments.mask])->in;
      }
    });
    return mine.out;
  }
  static float exp2(float value) { return std::exp2(value); }

 private:
  static void store(Shared to, const void* from, int bytes) {
    Block::now().touch(to, bytes, true);
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }
  static void load(void* to, Shared from, int bytes) {
    Block::now().touch(from, bytes, false);
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }

  static void matrices(std::uint32_t* out, int count, Shared from, bool transposed) {
    struct Arguments {
      std::uint32_t* out;
      char* from;
      int count;
      bool transposed;
    } mine{out, from, count, transposed};
    Block::now().meet(false, "ldmatrix", &mine, [](void* const* given) {
      const auto argument = [&](int lane) { return *static_cast<Arguments*>(given[lane]); };
      const int matrices = argument(0).count;
      for (int matrix = 0; matrix < matrices; ++matrix) {
        std::uint16_t values[8][8];
        unsigned banks = 0;
        for (int row = 0; row < 8; ++row) {
          const char* at = argument(8 * matrix + row).from;
          if (reinterpret_cast<std::uintptr_t>(at) % 16 != 0) throw Fault("a misaligned matrix");
          Block::now().touch(at, 16, false);
          banks |= 1u << (at - Block::now().shared()) / 16 % 8;
          std::memcpy(values[row], at, 16);
        }
        if (banks != 0xff) ++Block::now().bank_conflicts;
        for (int lane = 0; lane < kWarp; ++lane) {
          const int i = lane / 4, j = lane % 4 * 2;
          const bool t = argument(lane).transposed;
          const std::uint32_t low = t ? values[j][i] : values[i][j];
          const std::uint32_t high = t ? values[j + 1][i] : values[i][j + 1];
          argument(lane).out[matrix] = low | high << 16;
        }
      }
    });
  }
};

}  // namespace emulated
