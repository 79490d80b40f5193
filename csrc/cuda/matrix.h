// Products of a warp's rows with tiles in shared memory, on fragments of 16x16 and 16x8.
#pragma once

#include <cstdint>

#include "cuda/element.h"
#include "cuda/fragment.h"

namespace perfkit::cuda {

using FragmentA = std::uint32_t[4];
using Accumulator = float[4];

template <class M>
PERFKIT_BODY int lane_of() {
  return M::thread() % kWarp;
}

// Operand A: rows [row, row + 16) of a tile, elements [16 * step, 16 * step + 16) of each.
template <class M, class Tile>
PERFKIT_BODY void load_a(FragmentA& a, typename M::Shared tile, int row, int step) {
  const Position at = address_a(lane_of<M>());
  M::ldmatrix4(a, tile + Tile::offset(row + at.row, 2 * step + at.column));
}

// c[i][j] += A[i] B^T: B's rows are c's columns; `a` gives fragment A of tile i and step.
template <class M, class Element, class Tile, int kTiles, int kColumns, class LoadA>
PERFKIT_BODY void multiply_transposed(Accumulator (&c)[kTiles][kColumns / 8], const LoadA& load,
                                      typename M::Shared b_tile) {
  const Position at = address_b(lane_of<M>());
  // Wide heads: fragments loaded far ahead would push the accumulators out of the registers.
  PERFKIT_UNROLL_BY(Tile::kDepth > 96 && kTiles == 1 ? 4 : 8)
  for (int step = 0; step < Tile::kDepth / kFragment; ++step) {
    FragmentA a[kTiles];
    PERFKIT_UNROLL
    for (int i = 0; i < kTiles; ++i) load(a[i], i, step);
    PERFKIT_UNROLL
    for (int pair = 0; pair < kColumns / kFragment; ++pair) {
      std::uint32_t b[4];
      M::ldmatrix4(b, b_tile + Tile::offset(pair * kFragment + at.row, 2 * step + at.column));
      PERFKIT_UNROLL
      for (int i = 0; i < kTiles; ++i) {
        M::template mma<Element>(c[i][2 * pair], a[i], b[0], b[1]);
        M::template mma<Element>(c[i][2 * pair + 1], a[i], b[2], b[3]);
      }
    }
  }
}

// Two neighbouring accumulators are, rounded, one operand A of the next product.
template <class Element>
PERFKIT_BODY void round_to_a(FragmentA& a, const Accumulator& left, const Accumulator& right) {
  a[0] = Element::pack(left[0], left[1]);
  a[1] = Element::pack(left[2], left[3]);
  a[2] = Element::pack(right[0], right[1]);
  a[3] = Element::pack(right[2], right[3]);
}

// c[i][j] += round(A[i]) B: A's columns are B's rows.
template <class M, class Element, class Tile, int kTiles, int kDepth>
PERFKIT_BODY void multiply(Accumulator (&c)[kTiles][Tile::kChunks],
                           const Accumulator (&a_values)[kTiles][kDepth / 8],
                           typename M::Shared b_tile) {
  const Position at = address_b_trans(lane_of<M>());
  PERFKIT_UNROLL
  for (int step = 0; step < kDepth / kFragment; ++step) {
    FragmentA a[kTiles];
    PERFKIT_UNROLL
    for (int i = 0; i < kTiles; ++i)
      round_to_a<Element>(a[i], a_values[i][2 * step], a_values[i][2 * step + 1]);
    PERFKIT_UNROLL
    for (int pair = 0; pair < Tile::kChunks / 2; ++pair) {
      std::uint32_t b[4];
      M::ldmatrix4_t(b, b_tile + Tile::offset(step * kFragment + at.row, 2 * pair + at.column));
      PERFKIT_UNROLL
      for (int i = 0; i < kTiles; ++i) {
        M::template mma<Element>(c[i][2 * pair], a[i], b[0], b[1]);
        M::template mma<Element>(c[i][2 * pair + 1], a[i], b[2], b[3]);
      }
    }
    if constexpr (Tile::kChunks % 2 != 0) {
      constexpr int kLast = Tile::kChunks - 1;
      std::uint32_t b[2];
      // Only lanes 0 to 15 give addresses; the others repeat them.
      M::ldmatrix2_t(b, b_tile + Tile::offset(step * kFragment + at.row, kLast));
      PERFKIT_UNROLL
      for (int i = 0; i < kTiles; ++i) M::template mma<Element>(c[i][kLast], a[i], b[0], b[1]);
    }
  }
}

template <int kTiles, int kCount>
PERFKIT_BODY void clear(Accumulator (&c)[kTiles][kCount]) {
  PERFKIT_UNROLL
  for (int i = 0; i < kTiles; ++i)
    PERFKIT_UNROLL
    for (int j = 0; j < kCount; ++j)
      PERFKIT_UNROLL
      for (int e = 0; e < 4; ++e) c[i][j][e] = 0.0f;
}

}  // namespace perfkit::cuda
