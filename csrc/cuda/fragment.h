// Where the operands of mma.m16n8k16 and ldmatrix lie: which lane holds what. PTX ISA, "Matrix
// fragments for mma.m16n8k16" and "ldmatrix".
#pragma once

#include "cuda/platform.h"

namespace perfkit::cuda {

struct Position {
  int row, column;
};

// Element 0 of a lane's accumulator c[4]; c[1] is one column on, c[2] and c[3] 8 rows below.
PERFKIT_BODY constexpr Position accumulator_position(int lane) { return {lane / 4, lane % 4 * 2}; }

// The row (and the 16-byte chunk of it) whose address a lane gives to ldmatrix.x4 so that the
// four results are, in this order,
//   a 16x16 operand A:       {top left, bottom left, top right, bottom right}, as mma takes it;
PERFKIT_BODY constexpr Position address_a(int lane) { return {lane % 16, lane / 16}; }
//   two 8-column operands B, stored as 16 rows n of depth k: {b0, b1} of the first, of the second;
PERFKIT_BODY constexpr Position address_b(int lane) {
  return {lane % 8 + lane / 16 * 8, lane / 8 % 2};
}
//   the same operands, stored as 16 rows k of columns n, through ldmatrix.trans.
PERFKIT_BODY constexpr Position address_b_trans(int lane) { return {lane % 16, lane / 16}; }

// A tile of rows of `kDim` 16-bit elements in shared memory. Eight consecutive rows at the same
// chunk must fall into different banks, for ldmatrix reads them together: powers of two are
// swizzled, other widths get an odd number of chunks.
//
// The depth of an mma is 16: a head dimension of 72 has a tenth chunk of zeros.
template <int kDim>
struct RowTile {
  static_assert(kDim % kChunk == 0 && kDim >= 32, "whole chunks");
  static constexpr int kChunks = kDim / kChunk;
  static constexpr int kDepth = (kDim + kFragment - 1) / kFragment * kFragment;
  static constexpr int kPadChunks = kDepth / kChunk - kChunks;
  static constexpr bool kSwizzled = (kChunks & (kChunks - 1)) == 0;
  static constexpr int kPitchChunks = kSwizzled ? kChunks : ((kChunks + kPadChunks) | 1);
  static constexpr int kPitch = kPitchChunks * kChunkBytes;

  static PERFKIT_BODY constexpr int offset(int row, int chunk) {
    if constexpr (kSwizzled) {
      // Rows of 64 bytes lie in pairs: two of them make one line of banks.
      constexpr int kRowsPerLine = kChunks >= 8 ? 1 : 8 / kChunks;
      constexpr int kMask = (kChunks >= 8 ? 8 : kChunks) - 1;
      return row * kPitch + (chunk ^ (row / kRowsPerLine & kMask)) * kChunkBytes;
    } else {
      return row * kPitch + chunk * kChunkBytes;
    }
  }
  static PERFKIT_BODY constexpr int bytes(int rows) { return rows * kPitch; }
};

}  // namespace perfkit::cuda
