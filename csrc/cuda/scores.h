// What is between the two products: masks, biases, the online softmax.
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/element.h"
#include "cuda/matrix.h"
#include "cuda/problem.h"

namespace perfkit::cuda {

constexpr float kLog2e = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

PERFKIT_BODY float minus_infinity() { return -INFINITY; }

// One of the two tensors that are added to the scores of a head.
struct Added {
  const char* data;
  Kind kind;
  std::int64_t row, column;  // bytes

  PERFKIT_BODY Added(const Problem& p, const Tensor& t, int batch, int head)
      : data(t.data == nullptr ? nullptr : head_of(p, t, batch, head)),
        kind(t.kind),
        row(t.row * element_bytes(t.kind)),
        column(t.column * element_bytes(t.kind)) {}

  PERFKIT_BODY float at(int query, int key) const {
    if (data == nullptr) return 0.0f;
    const char* from = data + query * row + key * column;
    switch (kind) {
      case Kind::boolean: return *from != 0 ? 0.0f : minus_infinity();
      case Kind::fp32: return *reinterpret_cast<const float*>(from);
      case Kind::bf16: return Bf16::widen(*reinterpret_cast<const std::uint16_t*>(from));
      case Kind::fp16: return Fp16::widen(*reinterpret_cast<const std::uint16_t*>(from));
      default: return 0.0f;
    }
  }
};

// Which (query, key) pairs of a head count, and what is added to their scores.
struct Pairs {
  Added mask, bias;
  std::int32_t queries;
  bool causal;

  PERFKIT_BODY Pairs(const Problem& p, int batch, int head)
      : mask(p, p.mask, batch, head),
        bias(p, p.bias, batch, head),
        queries(p.queries),
        causal(p.causal) {}

  PERFKIT_BODY float added(int query, int key) const {
    return (mask.at(query, key) + bias.at(query, key)) * kLog2e;
  }
  // Do all keys [first_key, + columns) count for all queries from `first_query` on?
  PERFKIT_BODY bool whole(int first_query, int first_key, int columns, int key_end) const {
    return first_key + columns <= key_end && (!causal || first_key + columns <= first_query + 1);
  }
};

// The tile's scores become logits: what does not count is -inf. With `kGeneral` the result is in
// units of log2, or else as it was, to be scaled by `scale_log2` in the exponential. Rows of the
// accumulators are queries, or keys when `kTransposed`. Queries beyond the last one are zeros in
// shared memory and go nowhere; they only must not be looked up in a mask.
template <class M, bool kGeneral, bool kTransposed, int kTiles, int kCount>
PERFKIT_BODY void limit(Accumulator (&s)[kTiles][kCount], const Pairs& pairs, int first_query,
                        int first_key, int key_end, float scale_log2) {
  const Position at = accumulator_position(lane_of<M>());
  const int keys_left = key_end - first_key;
  const int diagonal = pairs.causal ? first_query - first_key : 1 << 30;
  PERFKIT_UNROLL
  for (int i = 0; i < kTiles; ++i)
    PERFKIT_UNROLL
    for (int j = 0; j < kCount; ++j)
      PERFKIT_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int row = i * kFragment + at.row + e / 2 * 8, column = j * 8 + at.column + e % 2;
        const int query = kTransposed ? column : row, key = kTransposed ? row : column;
        const bool counts = key < keys_left && key <= query + diagonal;
        if constexpr (kGeneral) {
          float value = minus_infinity();
          if (counts && first_query + query < pairs.queries)
            value = s[i][j][e] * scale_log2 + pairs.added(first_query + query, first_key + key);
          s[i][j][e] = value;
        } else if (!counts) {
          s[i][j][e] = minus_infinity();
        }
      }
}

// Over the four lanes that hold a row.
template <class M>
PERFKIT_BODY float row_max(float value) {
  value = fmaxf(value, M::shuffle_xor(value, 1));
  return fmaxf(value, M::shuffle_xor(value, 2));
}
template <class M>
PERFKIT_BODY float row_sum(float value) {
  value += M::shuffle_xor(value, 1);
  return value + M::shuffle_xor(value, 2);
}

// The running maximum and sum of a lane's two rows of one tile. The sum is this lane's part.
struct Softmax {
  float max[2] = {minus_infinity(), minus_infinity()};
  float sum[2] = {0.0f, 0.0f};

  // Logits become weights; what was accumulated so far is rescaled to the new maximum.
  template <class M, int kColumns, int kWidth>
  PERFKIT_BODY void update(Accumulator (&s)[kColumns], Accumulator (&out)[kWidth], float factor) {
    PERFKIT_UNROLL
    for (int half = 0; half < 2; ++half) {
      float largest = max[half];
      PERFKIT_UNROLL
      for (int j = 0; j < kColumns; ++j)
        largest = fmaxf(largest, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
      largest = row_max<M>(largest);
      // A row without any key so far: exp2(-inf - 0) is 0, where -inf - -inf would be NaN.
      const float base = largest == minus_infinity() ? 0.0f : largest * factor;
      const float shrink = M::exp2(max[half] * factor - base);
      max[half] = largest;
      float total = 0.0f;
      PERFKIT_UNROLL
      for (int j = 0; j < kColumns; ++j)
        PERFKIT_UNROLL
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          s[j][e] = M::exp2(s[j][e] * factor - base);
          total += s[j][e];
        }
      sum[half] = sum[half] * shrink + total;
      PERFKIT_UNROLL
      for (int j = 0; j < kWidth; ++j) {
        out[j][2 * half] *= shrink;
        out[j][2 * half + 1] *= shrink;
      }
    }
  }

  // What the row is multiplied with in the end; its log-sum-exp.
  template <class M>
  PERFKIT_BODY float finish(int half, float factor, float& lse) const {
    const float total = row_sum<M>(sum[half]);
    lse = total == 0.0f ? minus_infinity() : (max[half] * factor) * kLn2 + logf(total);
    return total == 0.0f ? 0.0f : 1.0f / total;
  }
};

}  // namespace perfkit::cuda
