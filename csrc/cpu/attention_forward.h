// The forward kernel of one tile of queries; see attention_tile.h for how it is included.
#pragma once

#include "cpu/attention_tile.h"

namespace perfkit::attention {
namespace {

std::int64_t forward_scratch(const Problem& p) {
  return bytes_of(kRows * p.dim) + bytes_of(kRows * p.value_dim) +
         bytes_of(kColumns * spread(p.dim)) + bytes_of(kColumns * spread(p.value_dim)) +
         2 * bytes_of(kColumns * L) + 2 * bytes_of(kRows);
}

void forward_tile(const Problem& p, std::int64_t batch, std::int64_t head, std::int64_t row,
                  char* memory) {
  const std::int64_t kv_head = head / (p.heads / p.kv_heads);
  const std::int64_t rows = p.queries - row < kRows ? p.queries - row : kRows;
  const std::int64_t strips = (rows + L - 1) / L;
  const std::int64_t k_start = start(p, p.k, batch, kv_head);
  const std::int64_t v_start = start(p, p.v, batch, kv_head);
  Scratch scratch{memory};
  float* qt = scratch.take(kRows * p.dim);
  float* ot = scratch.take(kRows * p.value_dim);
  float* k_tile = scratch.take(kColumns * spread(p.dim));
  float* v_tile = scratch.take(kColumns * spread(p.value_dim));
  float* s = scratch.take(kColumns * L);
  const Scores scores{p, start(p, p.mask, batch, head), start(p, p.bias, batch, head),
                      scratch.take(kColumns * L)};
  float* maxima = scratch.take(kRows);
  float* sums = scratch.take(kRows);

  transpose_in(p.q, start(p, p.q, batch, head), row, rows, p.dim, p.scale * kLog2e, qt);
  for (std::int64_t i = 0; i < strips * L * p.value_dim; ++i) ot[i] = 0.0f;
  for (std::int64_t i = 0; i < strips * L; ++i) maxima[i] = -INFINITY;
  for (std::int64_t i = 0; i < strips * L; ++i) sums[i] = 0.0f;

  const std::int64_t seen = p.causal && row + rows < p.keys ? row + rows : p.keys;
  const std::int64_t step = tile_columns(p);
  for (std::int64_t column = 0; column < seen; column += step) {
    const std::int64_t columns = seen - column < step ? seen - column : step;
    const Rows k = rows_of(p.k, k_start, column, columns, p.dim, false, k_tile);
    const Rows v = rows_of(p.v, v_start, column, columns, p.value_dim, true, v_tile);
    for (std::int64_t strip = 0; strip < strips; ++strip) {
      const std::int64_t first = strip * L;
      scores.of(qt + first * p.dim, k, row + first, rows - first, column, columns, s, L);
      const F before[2] = {load(maxima + first), load(maxima + first + W)};
      F top[2] = {before[0], before[1]};
      for (std::int64_t j = 0; j < columns; ++j)
        for (int half = 0; half < 2; ++half)
          top[half] = larger(load(s + j * L + half * W), top[half]);
      F base[2], factor[2], sum[2] = {F{}, F{}};
      for (int half = 0; half < 2; ++half) {
        // A row without any key so far: minus infinity less minus infinity would be NaN.
        base[half] = top[half] == -INFINITY ? F{} : top[half];
        factor[half] = exp2(before[half] - base[half]);
      }
      for (std::int64_t j = 0; j < columns; ++j)
        for (int half = 0; half < 2; ++half) {
          const F weight = exp2(load(s + j * L + half * W) - base[half]);
          store(s + j * L + half * W, weight);
          sum[half] += weight;
        }
      for (int half = 0; half < 2; ++half) {
        store(maxima + first + half * W, top[half]);
        store(sums + first + half * W, load(sums + first + half * W) * factor[half] + sum[half]);
      }
      product<2, Into::scale, false>(s, L, v.data, v.stride, columns, ot + first * p.value_dim, L,
                                     p.value_dim, factor);
    }
  }

  const std::int64_t out_start = start(p, p.out, batch, head);
  const std::int64_t lse_start = start(p, p.lse, batch, head);
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* from = ot + r / L * p.value_dim * L + r % L;
    const bool empty = sums[r] == 0.0f;
    const float inverse = empty ? 0.0f : 1.0f / sums[r];
    const std::int64_t to = out_start + (row + r) * p.out.row;
    for (int c = 0; c < p.value_dim; ++c)
      write(p.out.data, p.out.kind, to + c * p.out.column, from[c * L] * inverse);
    const float lse = empty ? -INFINITY : maxima[r] * kLn2 + logf(sums[r]);
    write(p.lse.data, Kind::fp32, lse_start + (row + r) * p.lse.row, lse);
  }
}

}  // namespace
}  // namespace perfkit::attention
