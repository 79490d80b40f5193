// The compiler's own vectors for the base instruction set of the target.
#define PERFKIT_LANES 4

#include "cpu/attention_backward.h"
#include "cpu/attention_forward.h"

namespace perfkit::attention {

const Kernels& portable_kernels() {
  static constexpr Kernels kernels{"portable", forward_scratch, backward_scratch, forward_tile,
                                   backward_rows};
  return kernels;
}

}  // namespace perfkit::attention

