// The protocol's memory on a CPU: C++ memory-model atomics on plain words (the segment is shared
// between processes, so the objects cannot be std::atomic), futexes to sleep.
//
// No stand-alone fences: ThreadSanitizer cannot see them. GCC and Clang builtins rather than
// std::atomic_ref keep this C++17.
#pragma once

#include <climits>
#include <cstdint>
#include <ctime>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#include <sched.h>

#include "protocol/layout.h"

namespace perfkit::protocol {

struct HostMemory {
  static std::uint64_t load_relaxed(const Word& word) {
    return __atomic_load_n(&word.value, __ATOMIC_RELAXED);
  }
  static std::uint64_t load_acquire(const Word& word) {
    return __atomic_load_n(&word.value, __ATOMIC_ACQUIRE);
  }
  static void store_relaxed(Word& word, std::uint64_t value) {
    __atomic_store_n(&word.value, value, __ATOMIC_RELAXED);
  }
  static void store_release(Word& word, std::uint64_t value) {
    // Sequentially consistent, which includes release: the store must be ordered before the look
    // at `waiters`, as a sleeper orders its count before its last look at the value.
    __atomic_exchange_n(&word.value, value, __ATOMIC_SEQ_CST);
    wake(word);
  }
  static bool claim(Word& word, std::uint64_t value) {
    std::uint64_t none = 0;
    const bool first = __atomic_compare_exchange_n(&word.value, &none, value, false,
                                                   __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
    if (first) wake(word);
    return first;
  }

  static std::int64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
  }

  // Spin while the other side is probably running, then give the core away, then sleep. A sleep
  // is short because the abort word is another word than the one slept on.
  class Wait {
   public:
    explicit Wait(std::int64_t timeout_ns, std::int64_t longest_sleep_ns = kSleep)
        : timeout_ns_(timeout_ns), longest_(longest_sleep_ns) {}

    bool again(Word& word, std::uint64_t seen) {
      ++round_;
      if (round_ <= kSpins) {
        relax();
        return timeout_ns_ > 0;
      }
      const std::int64_t now = now_ns();
      if (round_ == kSpins + 1) deadline_ = now + timeout_ns_;
      if (now >= deadline_) return false;
      if (round_ <= kSpins + kYields)
        sched_yield();
      else
        sleep(word, seen, deadline_ - now < longest_ ? deadline_ - now : longest_);
      return true;
    }

   private:
    static constexpr int kSpins = 2000;  // of the order of 50 us
    static constexpr int kYields = 200;
    static constexpr std::int64_t kSleep = 2'000'000;

    std::int64_t timeout_ns_, longest_;
    std::int64_t deadline_ = 0;
    int round_ = 0;
  };

  static void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
  }

 private:
  // A futex is 32 bits: the low half, which changes with every epoch.
  static std::uint32_t* low_half(Word& word) {
    auto* half = reinterpret_cast<std::uint32_t*>(&word.value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    ++half;
#endif
    return half;
  }

  static void wake(Word& word) {
#if defined(__linux__)
    if (__atomic_load_n(&word.waiters, __ATOMIC_SEQ_CST) != 0)
      syscall(SYS_futex, low_half(word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
#else
    (void)word;
#endif
  }

  static void sleep(Word& word, std::uint64_t seen, std::int64_t ns) {
    timespec span{};
    span.tv_sec = static_cast<time_t>(ns / 1'000'000'000);
    span.tv_nsec = static_cast<long>(ns % 1'000'000'000);
#if defined(__linux__)
    // A rank that is killed in here leaves the count too high: a wasted system call, no more.
    __atomic_fetch_add(&word.waiters, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&word.value, __ATOMIC_SEQ_CST) == seen)
      syscall(SYS_futex, low_half(word), FUTEX_WAIT, static_cast<std::uint32_t>(seen), &span,
              nullptr, 0);
    __atomic_fetch_sub(&word.waiters, 1, __ATOMIC_SEQ_CST);
#else
    (void)word;
    (void)seen;
    nanosleep(&span, nullptr);
#endif
  }
};

}  // namespace perfkit::protocol
