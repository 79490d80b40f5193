// Kernel bodies are templates over a machine `M`, so that the same text runs in two places: on a
// GPU (device.h) and, lane by lane, on a CPU (tests/csrc/emulator.h), where fragment layouts,
// masks, pipelines and barriers are checked without any GPU.
//
// `M` has static members only:
//   Shared                         an address in shared memory; `Shared + bytes` is another one
//   thread(), block()              index of the thread in its block, of the block in its grid
//   sync(), sync_warp(), any(b)    barriers; `any` also tells every thread whether one said true
//   copy_async16, copy_async4      (to, from, valid): zeros when not valid; then commit_async(),
//                                  wait_async<N>(): all but the newest N groups have arrived
//   store16/load16/store4/load4    ordinary accesses to shared memory
//   ldmatrix4, ldmatrix4_t, ldmatrix2_t, mma<Element>   the warp's matrix instructions
//   shuffle_xor, exp2              the warp's butterfly; 2^x, approximate
//   store_global16, copy_global16  16 bytes at once to, or within, global memory
//   Memory, add, clear             the protocol's memory; a counter in global memory
#pragma once

#if defined(__CUDACC__)
#define PERFKIT_BODY __host__ __device__ __forceinline__
#define PERFKIT_UNROLL _Pragma("unroll")
#define PERFKIT_TEXT(text) _Pragma(#text)
#define PERFKIT_UNROLL_BY(count) PERFKIT_TEXT(unroll(count))
#else
#define PERFKIT_BODY inline
#define PERFKIT_UNROLL
#define PERFKIT_UNROLL_BY(count)
#endif

namespace perfkit::cuda {

constexpr int kWarp = 32;
constexpr int kBlockRows = 8;    // rows of one 8x8 matrix of ldmatrix, columns of an mma's B
constexpr int kFragment = 16;    // rows of an mma's A, and its depth
constexpr int kChunkBytes = 16;  // what one lane copies, and one row of an 8x8 matrix
constexpr int kChunk = 8;        // elements of 16 bits in it

}  // namespace perfkit::cuda
