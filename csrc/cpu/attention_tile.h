// Vector code of the attention kernels, included by one file per instruction set and compiled
// with that file's flags. Everything is in an unnamed namespace and uses no templates of the
// standard library: a function that the linker could share between files might otherwise carry
// instructions that the processor lacks.
//
// Layout: tiles are transposed, with queries along the vector lanes. Row maxima and sums of the
// softmax are then vertical operations, K and V are read where they lie, one broadcast element at
// a time, and no head dimension needs padding.
#pragma once

#include <math.h>
#include <string.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#include <cstdint>

#include "cpu/attention.h"

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors never cross a call that is not inlined

namespace perfkit::attention {
namespace {

#define PERFKIT_INLINE inline __attribute__((always_inline))

constexpr int W = PERFKIT_LANES;
static_assert(W == 4 || W == 8 || W == 16, "splat() spells them out");
constexpr int L = 2 * W;  // lanes of a strip: two vectors
constexpr float kLog2e = 1.44269504088896340736f;
constexpr float kLn2 = 0.69314718055994530942f;

typedef float F __attribute__((vector_size(W * 4)));
typedef std::int32_t I __attribute__((vector_size(W * 4)));
typedef float Unaligned __attribute__((vector_size(W * 4), aligned(4), may_alias));

PERFKIT_INLINE F load(const float* at) { return *reinterpret_cast<const Unaligned*>(at); }
PERFKIT_INLINE void store(float* at, F value) { *reinterpret_cast<Unaligned*>(at) = value; }
// Spelled out: F{} + value would add 0 for the sake of a negative zero before it broadcasts.
PERFKIT_INLINE F splat(float x) {
#if PERFKIT_LANES == 16
  return F{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#elif PERFKIT_LANES == 8
  return F{x, x, x, x, x, x, x, x};
#else
  return F{x, x, x, x};
#endif
}
// a > b ? a : b, so b where one is NaN; compilers compare and blend where one instruction does it.
PERFKIT_INLINE F larger(F a, F b) {
#if PERFKIT_LANES == 16 && defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif PERFKIT_LANES == 8 && defined(__AVX__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

// 2^x by a polynomial on [-1/2, 1/2] (minimax, with a constant term of 1) times a power of two.
// Zero below the normal numbers, so that a masked score has no weight at all; NaN stays NaN.
// Relative error below 2^-23; one degree less would be felt in the gradients.
PERFKIT_INLINE F exp2(F x) {
  const F magic = splat(12583039.0f);  // 1.5 * 2^23 + 127: adding it rounds to a biased exponent
  x = larger(splat(-127.0f), x);       // whose exponent field is 0
  const F shifted = x + magic;
  const F f = x - (shifted - magic);
  F p = splat(1.53533621e-4f);
  p = p * f + 1.33988746e-3f;
  p = p * f + 9.61843736e-3f;
  p = p * f + 5.55033247e-2f;
  p = p * f + 2.40226479e-1f;
  p = p * f + 6.93147203e-1f;
  p = p * f + 1.0f;
  return p * reinterpret_cast<F>(reinterpret_cast<I>(shifted) << 23);
}

enum class Into { set, add, scale };

// C[n][v * W ..] = (C or C * factor) + sum over k of B[n * bn + k * bk] * A[k * lda + v * W ..]
// for N rows of C and V vectors: every product of this file. 2 x 6 accumulators, 2 vectors of A
// and one broadcast are 15 registers of 16.
template <int N, int V, Into into>
PERFKIT_INLINE void block(const float* a, std::int64_t lda, const float* b, std::int64_t bn,
                          std::int64_t bk, std::int64_t depth, float* c, std::int64_t ldc,
                          const F* factor) {
  F sum[N][V];
#pragma GCC unroll 16
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sum[n][v] = F{};
  for (std::int64_t k = 0; k < depth; ++k) {
    F left[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) left[v] = load(a + k * lda + v * W);
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      const F right = splat(b[n * bn + k * bk]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[n][v] += left[v] * right;
    }
  }
#pragma GCC unroll 16
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      float* to = c + n * ldc + v * W;
      // A tile is summed before it meets the total: each of its small terms added to the total
      // alone would lose as many bits as the total has grown by.
      if (into == Into::add) sum[n][v] += load(to);
      if (into == Into::scale) sum[n][v] += load(to) * factor[v];
      store(to, sum[n][v]);
    }
}

// The same for any number of rows; one of the strides of B is 1.
template <int V, Into into, bool b_rows>
void product(const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
             std::int64_t depth, float* c, std::int64_t ldc, std::int64_t rows, const F* factor) {
  const std::int64_t bn = b_rows ? ldb : 1, bk = b_rows ? 1 : ldb;
  // Fewer than 4 rows at once cannot keep the multipliers busy: 7, 8 and 9 are cut in half.
  while (rows > 0) {
    const std::int64_t now = rows < 6 ? rows : rows < 7 || rows > 9 ? 6 : (rows + 1) / 2;
    switch (now) {
      case 6: block<6, V, into>(a, lda, b, bn, bk, depth, c, ldc, factor); break;
      case 5: block<5, V, into>(a, lda, b, bn, bk, depth, c, ldc, factor); break;
      case 4: block<4, V, into>(a, lda, b, bn, bk, depth, c, ldc, factor); break;
      case 3: block<3, V, into>(a, lda, b, bn, bk, depth, c, ldc, factor); break;
      case 2: block<2, V, into>(a, lda, b, bn, bk, depth, c, ldc, factor); break;
      default: block<1, V, into>(a, lda, b, bn, bk, depth, c, ldc, factor);
    }
    b += now * bn;
    c += now * ldc;
    rows -= now;
  }
}

PERFKIT_INLINE float read(const char* data, Kind kind, std::int64_t index) {
  if (kind == Kind::fp32) return reinterpret_cast<const float*>(data)[index];
  const std::uint32_t bits =
      static_cast<std::uint32_t>(reinterpret_cast<const std::uint16_t*>(data)[index]) << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

PERFKIT_INLINE std::uint16_t to_bf16(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, 4);
  if (value != value) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);  // to even
}
PERFKIT_INLINE void write(char* data, Kind kind, std::int64_t index, float value) {
  if (kind == Kind::fp32)
    reinterpret_cast<float*>(data)[index] = value;
  else
    reinterpret_cast<std::uint16_t*>(data)[index] = to_bf16(value);
}

// The first element of a (batch, head) of a tensor, as an index.
PERFKIT_INLINE std::int64_t start(const Problem& p, const Tensor& t, std::int64_t batch,
                                  std::int64_t head) {
  std::int64_t at = head * t.head;
  for (int dim = kBatchDims - 1; dim >= 0; --dim) {
    at += batch % p.batch[dim] * t.batch[dim];
    batch /= p.batch[dim];
  }
  return at;
}

struct Rows {
  const float* data;
  std::int64_t stride;
};

// Elements from row to row of a tile: an odd number of cache lines where it is a whole number, so
// that a column of the tile does not fall into a few sets of the cache.
constexpr std::int64_t spread(int dim) { return dim % 32 == 0 ? dim + 16 : dim; }

// `count` rows of K or V as fp32 with unit stride: where they lie, or a converted tile. What is
// read `by_column` is copied too where it lies so that it would fall into a few sets.
PERFKIT_INLINE Rows rows_of(const Tensor& t, std::int64_t first, std::int64_t row,
                            std::int64_t count, int dim, bool by_column, float* tile) {
  const std::int64_t stride = spread(dim);
  if (t.kind == Kind::fp32 && t.column == 1) {
    const float* from = reinterpret_cast<const float*>(t.data) + first + row * t.row;
    if (!by_column || t.row % 256 != 0) return {from, t.row};
    for (std::int64_t r = 0; r < count; ++r)
      memcpy(tile + r * stride, from + r * t.row, static_cast<std::size_t>(dim) * 4);
    return {tile, stride};
  }
  for (std::int64_t r = 0; r < count; ++r) {
    const std::int64_t from = first + (row + r) * t.row;
    float* to = tile + r * stride;
    if (t.column == 1)
      for (int c = 0; c < dim; ++c) to[c] = read(t.data, t.kind, from + c);
    else
      for (int c = 0; c < dim; ++c) to[c] = read(t.data, t.kind, from + c * t.column);
  }
  return {tile, stride};
}

// Rows as strips [strip][dim][L], times `factor`; lanes without a row are 0.
inline void transpose_in(const Tensor& t, std::int64_t first, std::int64_t row,
                         std::int64_t count, int dim, float factor, float* strips) {
  for (std::int64_t r = 0; r < (count + L - 1) / L * L; ++r) {
    float* to = strips + r / L * dim * L + r % L;
    if (r >= count)
      for (int c = 0; c < dim; ++c) to[c * L] = 0.0f;
    else
      for (int c = 0; c < dim; ++c)
        to[c * L] = read(t.data, t.kind, first + (row + r) * t.row + c * t.column) * factor;
  }
}

// Mask and bias of one strip of queries as added scores in base 2, [keys][L].
inline void added_scores(const Problem& p, const Tensor& t, std::int64_t first, std::int64_t row,
                         std::int64_t rows, std::int64_t column, std::int64_t columns,
                         bool fresh, float* tile) {
  const std::int64_t lanes = rows < L ? rows : L;
  (void)p;
  for (std::int64_t lane = 0; lane < L; ++lane) {
    // Lanes beyond the last query repeat it; what they compute is dropped.
    const std::int64_t at =
        first + (row + (lane < lanes ? lane : lanes - 1)) * t.row + column * t.column;
    for (std::int64_t j = 0; j < columns; ++j) {
      float value;
      if (t.kind == Kind::boolean)
        value = t.data[at + j * t.column] ? 0.0f : -INFINITY;
      else
        value = read(t.data, t.kind, at + j * t.column) * kLog2e;
      float& to = tile[j * L + lane];
      to = fresh ? value : to + value;
    }
  }
}

// Keys of a tile: what lets a tile of K or V stay in a cache of 32 KiB beside the scores.
PERFKIT_INLINE std::int64_t tile_columns(const Problem& p) {
  const int dim = p.dim > p.value_dim ? p.dim : p.value_dim;
  const std::int64_t fits = 6144 / dim / 6 * 6;
  return fits < 24 ? 24 : fits > kColumns ? kColumns : fits;
}

struct Scratch {
  char* at;
  float* take(std::int64_t count) {
    auto* out = reinterpret_cast<float*>(at);
    at += (count * 4 + 63) / 64 * 64;
    return out;
  }
};
constexpr std::int64_t bytes_of(std::int64_t count) { return (count * 4 + 63) / 64 * 64; }

// Scores of one strip, base 2, with mask, bias and causality: s[keys][lds], L of each row.
struct Scores {
  const Problem& p;
  std::int64_t mask_start, bias_start;
  float* tile;

  PERFKIT_INLINE void of(const float* qt, Rows k, std::int64_t row, std::int64_t rows,
                         std::int64_t column, std::int64_t columns, float* s,
                         std::int64_t lds) const {
    product<2, Into::set, true>(qt, L, k.data, k.stride, p.dim, s, lds, columns, nullptr);
    const bool mask = p.mask.kind != Kind::none, bias = p.bias.kind != Kind::none;
    if (mask) added_scores(p, p.mask, mask_start, row, rows, column, columns, true, tile);
    if (bias) added_scores(p, p.bias, bias_start, row, rows, column, columns, !mask, tile);
    if (mask || bias)
      for (std::int64_t j = 0; j < columns; ++j)
        for (int at = 0; at < L; at += W)
          store(s + j * lds + at, load(s + j * lds + at) + load(tile + j * L + at));
    if (p.causal)
      for (std::int64_t j = 0; j < columns; ++j)
        for (int lane = 0; lane < L && row + lane < column + j; ++lane)
          s[j * lds + lane] = -INFINITY;
  }
};

}  // namespace
}  // namespace perfkit::attention
