// The machine of platform.h on a GPU of compute capability 8.0 or later.
#pragma once

#include <cstdint>

#include "cuda/device_memory.h"
#include "cuda/element.h"

namespace perfkit::cuda {

struct Device {
  using Shared = std::uint32_t;  // an address in the shared window
  using Memory = DeviceMemory;

  static __device__ __forceinline__ int thread() { return static_cast<int>(threadIdx.x); }
  static __device__ __forceinline__ int block() { return static_cast<int>(blockIdx.x); }
  static __device__ __forceinline__ void sync() { __syncthreads(); }
  static __device__ __forceinline__ void sync_warp() { __syncwarp(); }
  static __device__ __forceinline__ bool any(bool value) { return __syncthreads_or(value) != 0; }

  static __device__ __forceinline__ Shared shared(void* base) {
    return static_cast<Shared>(__cvta_generic_to_shared(base));
  }
  static __device__ __forceinline__ void copy_async16(Shared to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(valid ? 16 : 0)
                 : "memory");
  }
  static __device__ __forceinline__ void copy_async4(Shared to, const void* from, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from),
                 "r"(valid ? 4 : 0)
                 : "memory");
  }
  static __device__ __forceinline__ void commit_async() {
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  template <int kNewest>
  static __device__ __forceinline__ void wait_async() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kNewest) : "memory");
  }

  static __device__ __forceinline__ void store16(Shared to, const std::uint32_t (&words)[4]) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words[0]),
                 "r"(words[1]), "r"(words[2]), "r"(words[3])
                 : "memory");
  }
  static __device__ __forceinline__ void load16(std::uint32_t (&words)[4], Shared from) {
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(from)
                 : "memory");
  }
  static __device__ __forceinline__ void store4(Shared to, std::uint32_t word) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(word) : "memory");
  }
  static __device__ __forceinline__ std::uint32_t load4(Shared from) {
    std::uint32_t word;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(from) : "memory");
    return word;
  }
  static __device__ __forceinline__ void store_global16(void* to,
                                                        const std::uint32_t (&words)[4]) {
    *static_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
  }

  static __device__ __forceinline__ void copy_global16(void* to, const void* from) {
    *static_cast<uint4*>(to) = *static_cast<const uint4*>(from);
  }
  // What was written before an add by any thread is visible after a later one.
  static __device__ __forceinline__ std::uint32_t add(std::uint32_t* counter, std::uint32_t by) {
    std::uint32_t before;
    asm volatile("atom.acq_rel.sys.global.add.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(__cvta_generic_to_global(counter)), "r"(by)
                 : "memory");
    return before;
  }
  static __device__ __forceinline__ void clear(std::uint32_t* counter) {
    asm volatile("st.relaxed.sys.global.u32 [%0], 0;" ::"l"(__cvta_generic_to_global(counter))
                 : "memory");
  }

  static __device__ __forceinline__ void ldmatrix4(std::uint32_t (&r)[4], Shared from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
  }
  static __device__ __forceinline__ void ldmatrix4_t(std::uint32_t (&r)[4], Shared from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
  }
  static __device__ __forceinline__ void ldmatrix2_t(std::uint32_t (&r)[2], Shared from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(from)
                 : "memory");
  }
  template <class Element>
  static __device__ __forceinline__ void mma(float (&c)[4], const std::uint32_t (&a)[4],
                                             std::uint32_t b0, std::uint32_t b1);

  static __device__ __forceinline__ float shuffle_xor(float value, int mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
  }
  static __device__ __forceinline__ float exp2(float value) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
    return result;
  }
};

template <>
__device__ __forceinline__ void Device::mma<Bf16>(float (&c)[4], const std::uint32_t (&a)[4],
                                                  std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void Device::mma<Fp16>(float (&c)[4], const std::uint32_t (&a)[4],
                                                  std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace perfkit::cuda
