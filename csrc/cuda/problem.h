// Attention on the GPU: what a launch is given. Plain pointers and strides in elements; the
// kernels read and write the tensors where they lie.
#pragma once

#include <cstdint>

#include "cuda/platform.h"

namespace perfkit::cuda {

enum class Kind : std::int32_t { none = 0, fp32 = 1, bf16 = 2, boolean = 3, fp16 = 4 };

constexpr int kBatchDims = 4;

struct Tensor {
  char* data = nullptr;
  Kind kind = Kind::none;
  // Rows begin on 16 bytes and their elements are adjacent: copied by 16 bytes.
  bool vectors = false;
  std::int64_t batch[kBatchDims] = {};
  std::int64_t head = 0, row = 0, column = 0;  // a stride of 0 broadcasts
};

struct Problem {
  std::int32_t batch[kBatchDims] = {1, 1, 1, 1};
  std::int32_t heads = 1, kv_heads = 1, queries = 0, keys = 0;
  std::int32_t dim = 0;
  float scale = 1.0f;
  bool causal = false;  // query i sees the keys 0..i
  Tensor q, k, v, mask, bias;  // mask: boolean (true: attend) or added, like the bias
  Tensor out, lse;             // lse: natural logarithm, fp32, -inf for a row without keys
  Tensor d_out, d_q, d_k, d_v;
  Tensor delta;     // fp32 scratch like lse: the sum of out * d_out over a row
  Tensor d_scores;  // fp32, all of [..., heads, queries, keys]: the bias's gradient, or none

  PERFKIT_BODY std::int64_t batches() const {
    return std::int64_t{batch[0]} * batch[1] * batch[2] * batch[3];
  }
  // What the fast kernels leave out: masks, tensors that cannot be copied by 16 bytes, and a scale
  // that turns the maximum of the scores into something else than the maximum of the logits.
  PERFKIT_BODY bool general() const {
    return mask.data != nullptr || bias.data != nullptr || !(scale > 0.0f) || !q.vectors ||
           !k.vectors || !v.vectors || (d_out.data != nullptr && !d_out.vectors);
  }
};

constexpr PERFKIT_BODY int element_bytes(Kind kind) {
  return kind == Kind::fp32 ? 4 : kind == Kind::boolean ? 1 : 2;
}

// Where one head of a tensor begins.
PERFKIT_BODY std::int64_t head_offset(const Problem& p, const Tensor& t, int batch, int head) {
  std::int64_t at = std::int64_t{head} * t.head;
  PERFKIT_UNROLL
  for (int dim = kBatchDims - 1; dim >= 0; --dim) {
    at += batch % p.batch[dim] * t.batch[dim];
    batch /= p.batch[dim];
  }
  return at;
}
PERFKIT_BODY char* head_of(const Problem& p, const Tensor& t, int batch, int head) {
  return t.data + head_offset(p, t, batch, head) * element_bytes(t.kind);
}

}  // namespace perfkit::cuda
