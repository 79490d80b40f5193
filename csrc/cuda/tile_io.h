// Rows between global memory and tiles in shared memory.
#pragma once

#include <cstdint>

#include "cuda/fragment.h"
#include "cuda/matrix.h"
#include "cuda/problem.h"

namespace perfkit::cuda {

// The rows of one head of a tensor. Other sources of rows (switch_rows.h) have the same members.
struct StridedRows {
  char* base;
  std::int64_t row, column;  // bytes
  bool vectors;

  PERFKIT_BODY StridedRows(const Problem& p, const Tensor& t, int batch, int head)
      : base(head_of(p, t, batch, head)),
        row(t.row * element_bytes(t.kind)),
        column(t.column * element_bytes(t.kind)),
        vectors(t.vectors) {}
  PERFKIT_BODY char* at(int index) const { return base + index * row; }
};

PERFKIT_BODY std::uint32_t gather_pair(const char* from, std::int64_t stride) {
  const auto low = *reinterpret_cast<const std::uint16_t*>(from);
  const auto high = *reinterpret_cast<const std::uint16_t*>(from + stride);
  return low | std::uint32_t{high} << 16;
}

// Rows [first, first + kRows) of `rows` into a tile; those from `end` on become zeros. The copies
// belong to the caller's next group. Only the general kernels take rows that are no vectors.
template <class M, class Tile, int kRows, int kThreads, bool kGeneral, class Rows>
PERFKIT_BODY void load_rows(typename M::Shared tile, const Rows& rows, int first,
                            int end) {
  constexpr int kPieces = kRows * Tile::kChunks;
  PERFKIT_UNROLL
  for (int begin = 0; begin < kPieces; begin += kThreads) {
    const int piece = begin + M::thread();
    if (kPieces % kThreads != 0 && piece >= kPieces) break;
    const int row = piece / Tile::kChunks, chunk = piece % Tile::kChunks;
    const bool valid = first + row < end;
    // A pointer that is not followed still has to be one: row `first` exists.
    const char* from = rows.at(valid ? first + row : first);
    const typename M::Shared to = tile + Tile::offset(row, chunk);
    if (!kGeneral || rows.vectors) {
      M::copy_async16(to, from + chunk * kChunkBytes, valid);
    } else {
      std::uint32_t words[4] = {};
      from += chunk * kChunk * rows.column;
      PERFKIT_UNROLL
      for (int word = 0; word < 4; ++word)
        if (valid) words[word] = gather_pair(from + 2 * word * rows.column, rows.column);
      M::store16(to, words);
    }
  }
}

// Zeros where the depth of an mma goes beyond the head dimension: once, for no copy writes there.
template <class M, class Tile, int kThreads>
PERFKIT_BODY void clear_padding(typename M::Shared tile, int rows) {
  if constexpr (Tile::kPadChunks != 0) {
    const std::uint32_t zeros[4] = {};
    for (int row = M::thread(); row < rows; row += kThreads)
      PERFKIT_UNROLL
      for (int pad = 0; pad < Tile::kPadChunks; ++pad)
        M::store16(tile + Tile::offset(row, Tile::kChunks + pad), zeros);
  }
}

// A warp's accumulators, 16 rows of them, times `factors` of a lane's two rows, rounded, through
// the same 16 rows of a tile (which no other warp may use) to rows [first, end) by 16 bytes.
template <class M, class Element, class Tile, class Rows>
PERFKIT_BODY void store_rows(const Accumulator (&values)[Tile::kChunks], const float (&factors)[2],
                             typename M::Shared tile, int row, const Rows& rows,
                             int first, int end) {
  const int lane = lane_of<M>();
  const Position at = accumulator_position(lane);
  M::sync_warp();
  PERFKIT_UNROLL
  for (int chunk = 0; chunk < Tile::kChunks; ++chunk) {
    PERFKIT_UNROLL
    for (int half = 0; half < 2; ++half)
      M::store4(tile + Tile::offset(row + at.row + 8 * half, chunk) + at.column * 2,
                Element::pack(values[chunk][2 * half] * factors[half],
                              values[chunk][2 * half + 1] * factors[half]));
  }
  M::sync_warp();
  constexpr int kPieces = kFragment * Tile::kChunks;
  PERFKIT_UNROLL
  for (int begin = 0; begin < kPieces; begin += kWarp) {
    const int piece = begin + lane;
    if (kPieces % kWarp != 0 && piece >= kPieces) break;
    const int line = piece / Tile::kChunks, chunk = piece % Tile::kChunks;
    if (first + line >= end) continue;
    std::uint32_t words[4];
    M::load16(words, tile + Tile::offset(row + line, chunk));
    char* to = rows.at(first + line) + chunk * kChunkBytes;
    M::store_global16(to, words);
  }
}

}  // namespace perfkit::cuda
