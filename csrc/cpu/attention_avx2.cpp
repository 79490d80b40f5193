// Compiled with -mavx2 -mfma (CMakeLists.txt); called only where the processor has both.
#define PERFKIT_LANES 8
#if defined(__x86_64__)
#include "cpu/attention_backward.h"
#include "cpu/attention_forward.h"

namespace perfkit::attention {

const Kernels& avx2_kernels() {
  static constexpr Kernels kernels{"avx2", forward_scratch, backward_scratch, forward_tile,
                                   backward_rows};
  return kernels;
}

}  // namespace perfkit::attention
#endif
