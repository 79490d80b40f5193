// Compiled with -mavx512f -mfma (CMakeLists.txt); called only where the processor has AVX-512.
#define PERFKIT_LANES 16
#if defined(__x86_64__)
#include "cpu/attention_backward.h"
#include "cpu/attention_forward.h"

namespace perfkit::attention {

const Kernels& avx512_kernels() {
  static constexpr Kernels kernels{"avx512", forward_scratch, backward_scratch, forward_tile,
                                   backward_rows};
  return kernels;
}

}  // namespace perfkit::attention
#endif
