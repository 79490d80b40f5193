// Attention forward: FlashAttention-2 (Dao, arXiv 2307.08691). A block takes kRows queries of one
// head, its warps 16 * kWarpTiles each, and passes once over the keys; K and V arrive through a
// ring of kStages tiles while earlier ones are multiplied.
#pragma once

#include <cstdint>

#include "cuda/fragment.h"
#include "cuda/matrix.h"
#include "cuda/problem.h"
#include "cuda/scores.h"
#include "cuda/tile_io.h"

namespace perfkit::cuda {

// Two row tiles a warp halve the reads of K and V from shared memory; at 96 and above their
// accumulators no longer fit into registers beside the scores.
constexpr int forward_tiles(int dim, bool general) { return dim <= 80 && !general ? 2 : 1; }

template <class Element_, int kDim_, bool kGeneral_,
          int kWarpTiles_ = forward_tiles(kDim_, kGeneral_)>
struct ForwardShape {
  using Element = Element_;
  using Tile = RowTile<kDim_>;
  static constexpr int kDim = kDim_;
  static constexpr bool kGeneral = kGeneral_;
  static constexpr int kWarpTiles = kWarpTiles_;
  static constexpr int kWarps = kDim <= 80 ? 4 : 8;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kRows = kWarps * kWarpTiles * kFragment;
  static constexpr int kColumns = kGeneral ? 32 : 64;
  static constexpr int kStages = 2;

  static constexpr int kQBytes = Tile::bytes(kRows);
  static constexpr int kStageBytes = 2 * Tile::bytes(kColumns);
  static constexpr int kSharedBytes = kQBytes + kStages * kStageBytes;
};

// Which queries of which head a block computes. Later queries come first: under a causal mask
// they have the most keys, and the last blocks to run should be short.
struct QueryBlock {
  int batch, head, first;

  template <int kRows>
  static PERFKIT_BODY QueryBlock of(const Problem& p, int block) {
    const int tiles = (p.queries + kRows - 1) / kRows;
    const int heads = block / tiles;
    return {heads / p.heads, heads % p.heads, (tiles - 1 - block % tiles) * kRows};
  }
  PERFKIT_BODY int kv_head(const Problem& p) const { return head / (p.heads / p.kv_heads); }
};

struct KeyTile {
  int first, end;  // keys [first, end), of which a tile holds at most kColumns
};

// All the keys that some query of a block sees, in order.
template <int kColumns>
struct KeysInOrder {
  int end;

  PERFKIT_BODY KeysInOrder(const Problem& p, int last_query)
      : end(p.causal && last_query + 1 < p.keys ? last_query + 1 : p.keys) {}
  PERFKIT_BODY int count() const { return (end + kColumns - 1) / kColumns; }
  PERFKIT_BODY KeyTile at(int tile) const { return {tile * kColumns, end}; }
  // Whether tile `tile` may be read; false gives the block up.
  template <class M>
  PERFKIT_BODY bool arrive(int) const {
    return true;
  }
};

template <class M, class Shape, class QRows, class KRows, class Keys, class OutRows>
PERFKIT_BODY bool forward_block(const Problem& p, const QueryBlock& block, const QRows& q_rows,
                                const KRows& k_rows, const KRows& v_rows, Keys& keys,
                                const OutRows& out_rows, typename M::Shared shared) {
  using Element = typename Shape::Element;
  using Tile = typename Shape::Tile;
  using Shared = typename M::Shared;
  constexpr int kTiles = Shape::kWarpTiles;
  constexpr int kColumns = Shape::kColumns;

  const Shared q_tile = shared;
  const auto k_stage = [&](int tile) {
    return shared + (Shape::kQBytes + tile % Shape::kStages * Shape::kStageBytes);
  };
  const auto v_stage = [&](int tile) { return k_stage(tile) + Tile::bytes(kColumns); };
  const int warp_row = M::thread() / kWarp * kTiles * kFragment;
  const int first_row = block.first + warp_row;
  const int count = keys.count();

  // Returns whether to go on. Always closes a group, so that groups count tiles.
  const auto fetch = [&](int tile) {
    if (tile < count) {
      if (!keys.template arrive<M>(tile)) return false;
      const KeyTile at = keys.at(tile);
      load_rows<M, Tile, kColumns, Shape::kThreads, Shape::kGeneral>(k_stage(tile), k_rows, at.first, at.end);
      load_rows<M, Tile, kColumns, Shape::kThreads, Shape::kGeneral>(v_stage(tile), v_rows, at.first, at.end);
    }
    M::commit_async();
    return true;
  };

  clear_padding<M, Tile, Shape::kThreads>(q_tile, Shape::kRows);
  for (int stage = 0; stage < Shape::kStages; ++stage)
    clear_padding<M, Tile, Shape::kThreads>(k_stage(stage), kColumns);
  load_rows<M, Tile, Shape::kRows, Shape::kThreads, Shape::kGeneral>(q_tile, q_rows, block.first, p.queries);
  PERFKIT_UNROLL
  for (int tile = 0; tile < Shape::kStages - 1; ++tile)
    if (!fetch(tile)) return false;

  const Pairs pairs(p, block.batch, block.head);
  const float scale_log2 = p.scale * kLog2e;
  const float factor = Shape::kGeneral ? 1.0f : scale_log2;
  Accumulator out[kTiles][Tile::kChunks];
  clear(out);
  Softmax softmax[kTiles];
  const auto load_q = [&](FragmentA& a, int i, int step) {
    load_a<M, Tile>(a, q_tile, warp_row + i * kFragment, step);
  };

  for (int tile = 0; tile < count; ++tile) {
    M::template wait_async<Shape::kStages - 2>();
    // Behind this barrier every copy of this tile is visible, and nobody reads the last one.
    M::sync();
    if (!fetch(tile + Shape::kStages - 1)) return false;
    Accumulator s[kTiles][kColumns / 8];
    clear(s);
    multiply_transposed<M, Element, Tile, kTiles, kColumns>(s, load_q, k_stage(tile));
    const KeyTile at = keys.at(tile);
    if (Shape::kGeneral || !pairs.whole(first_row, at.first, kColumns, at.end))
      limit<M, Shape::kGeneral, false>(s, pairs, first_row, at.first, at.end, scale_log2);
    PERFKIT_UNROLL
    for (int i = 0; i < kTiles; ++i) softmax[i].template update<M>(s[i], out[i], factor);
    multiply<M, Element, Tile, kTiles, kColumns>(out, s, v_stage(tile));
  }
  // The tile of Q becomes the way out; without any key its copies may still be under way.
  M::template wait_async<0>();
  if (count == 0) M::sync();

  const Position at = accumulator_position(lane_of<M>());
  float* lse = p.lse.data == nullptr
                   ? nullptr
                   : reinterpret_cast<float*>(head_of(p, p.lse, block.batch, block.head));
  PERFKIT_UNROLL
  for (int i = 0; i < kTiles; ++i) {
    float factors[2];
    PERFKIT_UNROLL
    for (int half = 0; half < 2; ++half) {
      float value;
      factors[half] = softmax[i].template finish<M>(half, factor, value);
      const int row = first_row + i * kFragment + at.row + 8 * half;
      if (lse != nullptr && at.column == 0 && row < p.queries) lse[row * p.lse.row] = value;
    }
    store_rows<M, Element, Tile>(out[i], factors, q_tile, warp_row + i * kFragment, out_rows,
                                 first_row + i * kFragment, p.queries);
  }
  return true;
}

template <class M, class Shape>
PERFKIT_BODY void forward(const Problem& p, typename M::Shared shared) {
  const auto block = QueryBlock::of<Shape::kRows>(p, M::block());
  const int kv_head = block.kv_head(p);
  KeysInOrder<Shape::kColumns> keys(p, block.first + Shape::kRows - 1);
  forward_block<M, Shape>(
      p, block, StridedRows(p, p.q, block.batch, block.head),
      StridedRows(p, p.k, block.batch, kv_head), StridedRows(p, p.v, block.batch, kv_head), keys,
      StridedRows(p, p.out, block.batch, block.head), shared);
}

}  // namespace perfkit::cuda
