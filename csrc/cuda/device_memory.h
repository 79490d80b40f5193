// The protocol's memory (protocol/endpoint.h) on a GPU: system-scope accesses, so that the other
// side may be another kernel, another GPU or a CPU, and waits bounded by %globaltimer.
#pragma once

#include <cstdint>

#include "protocol/layout.h"

namespace perfkit::cuda {

struct DeviceMemory {
  using Word = protocol::Word;

  static __device__ __forceinline__ std::uint64_t load_relaxed(const Word& word) {
    std::uint64_t value;
    asm volatile("ld.relaxed.sys.global.u64 %0, [%1];"
                 : "=l"(value)
                 : "l"(__cvta_generic_to_global(&word.value))
                 : "memory");
    return value;
  }
  static __device__ __forceinline__ std::uint64_t load_acquire(const Word& word) {
    std::uint64_t value;
    asm volatile("ld.acquire.sys.global.u64 %0, [%1];"
                 : "=l"(value)
                 : "l"(__cvta_generic_to_global(&word.value))
                 : "memory");
    return value;
  }
  static __device__ __forceinline__ void store_relaxed(Word& word, std::uint64_t value) {
    asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(
                     __cvta_generic_to_global(&word.value)),
                 "l"(value)
                 : "memory");
  }
  // A host rank that sleeps on the word is not woken; it looks again by itself after a while.
  static __device__ __forceinline__ void store_release(Word& word, std::uint64_t value) {
    asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(
                     __cvta_generic_to_global(&word.value)),
                 "l"(value)
                 : "memory");
  }
  static __device__ __forceinline__ bool claim(Word& word, std::uint64_t value) {
    std::uint64_t before;
    asm volatile("atom.acq_rel.sys.global.cas.b64 %0, [%1], 0, %2;"
                 : "=l"(before)
                 : "l"(__cvta_generic_to_global(&word.value)), "l"(value)
                 : "memory");
    return before == 0;
  }

  class Wait {
   public:
    explicit __device__ __forceinline__ Wait(std::int64_t timeout_ns, std::int64_t = 0)
        : end_(now() + timeout_ns) {}
    __device__ __forceinline__ bool again(Word&, std::uint64_t) {
      __nanosleep(100);
      return now() < end_;
    }

   private:
    static __device__ __forceinline__ std::int64_t now() {
      std::int64_t value;
      asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(value));
      return value;
    }
    std::int64_t end_;
  };
};

}  // namespace perfkit::cuda
