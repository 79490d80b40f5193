// Attention backward (Dao, arXiv 2307.08691, algorithm 2) as two passes, so that every gradient is
// summed by one block in a fixed order and nothing needs atomics: `backward_kv` takes keys and
// goes over the queries, `backward_q` takes queries and goes over the keys. Both recompute the
// weights P = exp(S - lse), and dS = P * (dP - delta) from dP = dO V^T.
//
// backward_kv works on the transposed S = K Q^T: its accumulators are then at once the left
// operands of dV += P^T dO and dK += dS^T Q, and never leave the registers.
#pragma once

#include <cstdint>

#include "cuda/forward.h"
#include "cuda/fragment.h"
#include "cuda/matrix.h"
#include "cuda/problem.h"
#include "cuda/scores.h"
#include "cuda/tile_io.h"

namespace perfkit::cuda {

template <class Element_, int kDim_, bool kGeneral_>
struct BackwardShape {
  using Element = Element_;
  using Tile = RowTile<kDim_>;
  static constexpr int kDim = kDim_;
  static constexpr bool kGeneral = kGeneral_;
  static constexpr int kWarps = 8;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kRows = kWarps * kFragment;
  static constexpr int kColumns = kGeneral || kDim > 80 ? 32 : 64;
  static constexpr int kStages = 2;
};

template <class Element, int kDim, bool kGeneral>
struct BackwardKvShape : BackwardShape<Element, kDim, kGeneral> {
  using Base = BackwardShape<Element, kDim, kGeneral>;
  static constexpr int kTileBytes = Base::Tile::bytes(Base::kColumns);
  static constexpr int kStageBytes = 2 * kTileBytes + 2 * Base::kColumns * 4;  // + lse and delta
  static constexpr int kRowBytes = Base::Tile::bytes(Base::kRows);
  static constexpr int kSharedBytes = 2 * kRowBytes + Base::kStages * kStageBytes;
};

template <class Element, int kDim, bool kGeneral>
struct BackwardQShape : BackwardShape<Element, kDim, kGeneral> {
  using Base = BackwardShape<Element, kDim, kGeneral>;
  static constexpr int kTileBytes = Base::Tile::bytes(Base::kColumns);
  static constexpr int kStageBytes = 2 * kTileBytes;
  static constexpr int kRowBytes = Base::Tile::bytes(Base::kRows);
  static constexpr int kSharedBytes = 2 * kRowBytes + Base::kStages * kStageBytes;
};

// What an exponent of 2 is reduced by; a row without keys has weights of 0, not exp(inf).
PERFKIT_BODY float exponent_base(float lse) {
  return lse == minus_infinity() ? -minus_infinity() : lse * kLog2e;
}

// delta = the sum of out * d_out over a row; one warp a row.
template <class M, class Element, int kThreads>
PERFKIT_BODY void delta_rows(const Problem& p) {
  constexpr int kRows = kThreads / kWarp;
  const int lane = lane_of<M>();
  const int tiles = (p.queries + kRows - 1) / kRows;
  const int heads = M::block() / tiles;
  const int batch = heads / p.heads, head = heads % p.heads;
  const int row = M::block() % tiles * kRows + M::thread() / kWarp;
  if (row >= p.queries) return;
  const StridedRows out(p, p.out, batch, head), d_out(p, p.d_out, batch, head);
  const char *a = out.at(row), *b = d_out.at(row);
  float sum = 0.0f;
  for (int pair = lane; pair < p.dim / 2; pair += kWarp) {
    const std::uint32_t x = gather_pair(a + 2 * pair * out.column, out.column);
    const std::uint32_t y = gather_pair(b + 2 * pair * d_out.column, d_out.column);
    sum += Element::widen(static_cast<std::uint16_t>(x)) *
           Element::widen(static_cast<std::uint16_t>(y));
    sum += Element::widen(static_cast<std::uint16_t>(x >> 16)) *
           Element::widen(static_cast<std::uint16_t>(y >> 16));
  }
  PERFKIT_UNROLL
  for (int mask = 1; mask < kWarp; mask *= 2) sum += M::shuffle_xor(sum, mask);
  if (lane == 0)
    reinterpret_cast<float*>(head_of(p, p.delta, batch, head))[row * p.delta.row] = sum;
}

// The queries that a block of backward_kv goes over: every head that shares the K/V head, each
// from the first query that sees one of its keys.
struct QuerySteps {
  int first_head, first_tile, per_head, heads;

  template <int kColumns>
  static PERFKIT_BODY QuerySteps of(const Problem& p, int kv_head, int first_key) {
    const int heads = p.heads / p.kv_heads;
    const int tiles = (p.queries + kColumns - 1) / kColumns;
    const int skipped = p.causal ? first_key / kColumns : 0;
    return {kv_head * heads, skipped, skipped < tiles ? tiles - skipped : 0, heads};
  }
  PERFKIT_BODY int count() const { return heads * per_head; }
  PERFKIT_BODY int head(int step) const { return first_head + step / per_head; }
  PERFKIT_BODY int tile(int step) const { return first_tile + step % per_head; }
};

template <class M, class Shape>
PERFKIT_BODY void backward_kv(const Problem& p, typename M::Shared shared) {
  using Element = typename Shape::Element;
  using Tile = typename Shape::Tile;
  using Shared = typename M::Shared;
  constexpr int kColumns = Shape::kColumns;
  constexpr int kThreads = Shape::kThreads;
  constexpr bool kGeneral = Shape::kGeneral;

  const int blocks = (p.keys + Shape::kRows - 1) / Shape::kRows;
  const int heads = M::block() / blocks;
  const int batch = heads / p.kv_heads, kv_head = heads % p.kv_heads;
  const int first_key = M::block() % blocks * Shape::kRows;
  const QuerySteps steps = QuerySteps::of<kColumns>(p, kv_head, first_key);
  const int count = steps.count();

  const Shared k_tile = shared, v_tile = shared + Shape::kRowBytes;
  const auto q_stage = [&](int step) {
    return shared + (2 * Shape::kRowBytes + step % Shape::kStages * Shape::kStageBytes);
  };
  const auto d_stage = [&](int step) { return q_stage(step) + Shape::kTileBytes; };
  const auto lse_stage = [&](int step) { return q_stage(step) + 2 * Shape::kTileBytes; };
  const auto delta_stage = [&](int step) { return lse_stage(step) + kColumns * 4; };

  const auto fetch = [&](int step) {
    if (step < count) {
      const int head = steps.head(step), first = steps.tile(step) * kColumns;
      load_rows<M, Tile, kColumns, kThreads, kGeneral>(
          q_stage(step), StridedRows(p, p.q, batch, head), first, p.queries);
      load_rows<M, Tile, kColumns, kThreads, kGeneral>(
          d_stage(step), StridedRows(p, p.d_out, batch, head), first, p.queries);
      if (M::thread() < 2 * kColumns) {
        const bool is_lse = M::thread() < kColumns;
        const int column = M::thread() % kColumns;
        const bool valid = first + column < p.queries;
        const Tensor& t = is_lse ? p.lse : p.delta;
        const char* from = head_of(p, t, batch, head) + (valid ? first + column : first) * t.row * 4;
        M::copy_async4((is_lse ? lse_stage(step) : delta_stage(step)) + column * 4, from, valid);
      }
    }
    M::commit_async();
  };

  clear_padding<M, Tile, kThreads>(k_tile, Shape::kRows);
  clear_padding<M, Tile, kThreads>(v_tile, Shape::kRows);
  for (int stage = 0; stage < Shape::kStages; ++stage) {
    clear_padding<M, Tile, kThreads>(q_stage(stage), kColumns);
    clear_padding<M, Tile, kThreads>(d_stage(stage), kColumns);
  }
  load_rows<M, Tile, Shape::kRows, kThreads, kGeneral>(
      k_tile, StridedRows(p, p.k, batch, kv_head), first_key, p.keys);
  load_rows<M, Tile, Shape::kRows, kThreads, kGeneral>(
      v_tile, StridedRows(p, p.v, batch, kv_head), first_key, p.keys);
  PERFKIT_UNROLL
  for (int step = 0; step < Shape::kStages - 1; ++step) fetch(step);

  const int warp_row = M::thread() / kWarp * kFragment;
  const int warp_key = first_key + warp_row;
  const float scale_log2 = p.scale * kLog2e;
  const float factor = kGeneral ? 1.0f : scale_log2;
  const auto load_k = [&](FragmentA& a, int, int step) {
    load_a<M, Tile>(a, k_tile, warp_row, step);
  };
  const auto load_v = [&](FragmentA& a, int, int step) {
    load_a<M, Tile>(a, v_tile, warp_row, step);
  };
  const int lane_column = accumulator_position(lane_of<M>()).column;
  const auto of_column = [&](Shared values, int j, int e) {
    return bits_float(M::load4(values + (j * 8 + lane_column + e % 2) * 4));
  };
  Accumulator d_k[1][Tile::kChunks], d_v[1][Tile::kChunks];
  clear(d_k);
  clear(d_v);

  for (int step = 0; step < count; ++step) {
    M::template wait_async<Shape::kStages - 2>();
    M::sync();
    fetch(step + Shape::kStages - 1);
    const int first_query = steps.tile(step) * kColumns;
    Accumulator s[1][kColumns / 8], d_p[1][kColumns / 8];
    clear(s);
    multiply_transposed<M, Element, Tile, 1, kColumns>(s, load_k, q_stage(step));
    const Pairs pairs(p, batch, steps.head(step));
    if (kGeneral || !pairs.whole(first_query, warp_key, kFragment, p.keys))
      limit<M, kGeneral, true>(s, pairs, first_query, warp_key, p.keys, scale_log2);
    PERFKIT_UNROLL
    for (int j = 0; j < kColumns / 8; ++j)
      PERFKIT_UNROLL
      for (int e = 0; e < 4; ++e)
        s[0][j][e] =
            M::exp2(s[0][j][e] * factor - exponent_base(of_column(lse_stage(step), j, e)));
    multiply<M, Element, Tile, 1, kColumns>(d_v, s, d_stage(step));
    clear(d_p);
    multiply_transposed<M, Element, Tile, 1, kColumns>(d_p, load_v, d_stage(step));
    PERFKIT_UNROLL
    for (int j = 0; j < kColumns / 8; ++j)
      PERFKIT_UNROLL
      for (int e = 0; e < 4; ++e)
        s[0][j][e] *= d_p[0][j][e] - of_column(delta_stage(step), j, e);
    multiply<M, Element, Tile, 1, kColumns>(d_k, s, q_stage(step));
  }
  M::template wait_async<0>();
  if (count == 0) M::sync();

  const float ones[2] = {1.0f, 1.0f}, scales[2] = {p.scale, p.scale};
  store_rows<M, Element, Tile>(d_k[0], scales, k_tile, warp_row,
                               StridedRows(p, p.d_k, batch, kv_head), warp_key, p.keys);
  store_rows<M, Element, Tile>(d_v[0], ones, v_tile, warp_row,
                               StridedRows(p, p.d_v, batch, kv_head), warp_key, p.keys);
}

template <class M, class Shape>
PERFKIT_BODY void backward_q(const Problem& p, typename M::Shared shared) {
  using Element = typename Shape::Element;
  using Tile = typename Shape::Tile;
  using Shared = typename M::Shared;
  constexpr int kColumns = Shape::kColumns;
  constexpr int kThreads = Shape::kThreads;
  constexpr bool kGeneral = Shape::kGeneral;

  const auto block = QueryBlock::of<Shape::kRows>(p, M::block());
  const int kv_head = block.kv_head(p);
  const KeysInOrder<kColumns> keys(p, block.first + Shape::kRows - 1);
  const int count = keys.count();
  const StridedRows k_rows(p, p.k, block.batch, kv_head), v_rows(p, p.v, block.batch, kv_head);

  const Shared q_tile = shared, d_tile = shared + Shape::kRowBytes;
  const auto k_stage = [&](int tile) {
    return shared + (2 * Shape::kRowBytes + tile % Shape::kStages * Shape::kStageBytes);
  };
  const auto v_stage = [&](int tile) { return k_stage(tile) + Shape::kTileBytes; };
  const auto fetch = [&](int tile) {
    if (tile < count) {
      const KeyTile at = keys.at(tile);
      load_rows<M, Tile, kColumns, kThreads, kGeneral>(k_stage(tile), k_rows, at.first, at.end);
      load_rows<M, Tile, kColumns, kThreads, kGeneral>(v_stage(tile), v_rows, at.first, at.end);
    }
    M::commit_async();
  };

  clear_padding<M, Tile, kThreads>(q_tile, Shape::kRows);
  clear_padding<M, Tile, kThreads>(d_tile, Shape::kRows);
  for (int stage = 0; stage < Shape::kStages; ++stage) {
    clear_padding<M, Tile, kThreads>(k_stage(stage), kColumns);
    clear_padding<M, Tile, kThreads>(v_stage(stage), kColumns);
  }
  load_rows<M, Tile, Shape::kRows, kThreads, kGeneral>(
      q_tile, StridedRows(p, p.q, block.batch, block.head), block.first, p.queries);
  load_rows<M, Tile, Shape::kRows, kThreads, kGeneral>(
      d_tile, StridedRows(p, p.d_out, block.batch, block.head), block.first, p.queries);
  PERFKIT_UNROLL
  for (int tile = 0; tile < Shape::kStages - 1; ++tile) fetch(tile);

  const int warp_row = M::thread() / kWarp * kFragment;
  const int first_row = block.first + warp_row;
  const Position at = accumulator_position(lane_of<M>());
  const float scale_log2 = p.scale * kLog2e;
  const float factor = kGeneral ? 1.0f : scale_log2;
  const Pairs pairs(p, block.batch, block.head);
  float base[2], delta[2];
  PERFKIT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + at.row + 8 * half;
    const bool valid = row < p.queries;
    const auto of_row = [&](const Tensor& t) {
      return reinterpret_cast<const float*>(head_of(p, t, block.batch, block.head))[row * t.row];
    };
    base[half] = exponent_base(valid ? of_row(p.lse) : minus_infinity());
    delta[half] = valid ? of_row(p.delta) : 0.0f;
  }
  float* d_scores = nullptr;
  if (kGeneral && p.d_scores.data != nullptr)
    d_scores = reinterpret_cast<float*>(head_of(p, p.d_scores, block.batch, block.head));
  const auto load_q = [&](FragmentA& a, int, int step) {
    load_a<M, Tile>(a, q_tile, warp_row, step);
  };
  const auto load_d = [&](FragmentA& a, int, int step) {
    load_a<M, Tile>(a, d_tile, warp_row, step);
  };
  Accumulator d_q[1][Tile::kChunks];
  clear(d_q);

  for (int tile = 0; tile < count; ++tile) {
    M::template wait_async<Shape::kStages - 2>();
    M::sync();
    fetch(tile + Shape::kStages - 1);
    const KeyTile range = keys.at(tile);
    Accumulator s[1][kColumns / 8], d_p[1][kColumns / 8];
    clear(s);
    multiply_transposed<M, Element, Tile, 1, kColumns>(s, load_q, k_stage(tile));
    if (kGeneral || !pairs.whole(first_row, range.first, kColumns, range.end))
      limit<M, kGeneral, false>(s, pairs, first_row, range.first, range.end, scale_log2);
    clear(d_p);
    multiply_transposed<M, Element, Tile, 1, kColumns>(d_p, load_d, v_stage(tile));
    PERFKIT_UNROLL
    for (int j = 0; j < kColumns / 8; ++j)
      PERFKIT_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int half = e / 2;
        s[0][j][e] =
            M::exp2(s[0][j][e] * factor - base[half]) * (d_p[0][j][e] - delta[half]);
        if (kGeneral && d_scores != nullptr) {
          const int row = first_row + at.row + 8 * half;
          const int key = range.first + j * 8 + at.column + e % 2;
          if (row < p.queries && key < range.end)
            d_scores[row * p.d_scores.row + key * p.d_scores.column] = s[0][j][e];
        }
      }
    multiply<M, Element, Tile, 1, kColumns>(d_q, s, k_stage(tile));
  }
  M::template wait_async<0>();
  if (count == 0) M::sync();
  const float scales[2] = {p.scale, p.scale};
  store_rows<M, Element, Tile>(d_q[0], scales, q_tile, warp_row,
                               StridedRows(p, p.d_q, block.batch, block.head), first_row,
                               p.queries);
}

}  // namespace perfkit::cuda
