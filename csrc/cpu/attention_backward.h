// The backward kernel; see attention_tile.h for how it is included.
#pragma once

#include "cpu/attention_tile.h"

namespace perfkit::attention {
namespace {

std::int64_t backward_scratch(const Problem& p) {
  return 2 * bytes_of(kRows * p.dim) + bytes_of(kRows * p.value_dim) +
         bytes_of(kRows * padded(p.dim)) + bytes_of(kRows * padded(p.value_dim)) +
         bytes_of(kColumns * spread(p.dim)) + bytes_of(kColumns * spread(p.value_dim)) +
         bytes_of(kColumns * L) + 2 * bytes_of(kColumns * kRows) + 4 * bytes_of(kRows);
}

// Rows as they are, padded with zeros to `stride`, times `factor`.
inline void copy_in(const Tensor& t, std::int64_t first, std::int64_t row, std::int64_t count,
                    int dim, int stride, float factor, float* to) {
  for (std::int64_t r = 0; r < (count + L - 1) / L * L; ++r)
    for (int c = 0; c < stride; ++c)
      to[r * stride + c] =
          r < count && c < dim
              ? read(t.data, t.kind, first + (row + r) * t.row + c * t.column) * factor
              : 0.0f;
}

// C[j][..dim] += sum over the tile's queries of s[j][query] * rows[query][..dim]
PERFKIT_INLINE void outer(const float* rows, int stride, int dim, const float* s,
                          std::int64_t columns, std::int64_t count, float* c) {
  int at = 0;
  for (; at + W < dim; at += L)
    product<2, Into::add, true>(rows + at, stride, s, kRows, count, c + at, stride, columns, nullptr);
  if (at < dim)
    product<1, Into::add, true>(rows + at, stride, s, kRows, count, c + at, stride, columns, nullptr);
}

void backward_rows(const Problem& p, std::int64_t batch, std::int64_t kv_head,
                   std::int64_t first_row, std::int64_t last_row, float* d_k, float* d_v,
                   char* memory) {
  const int k_stride = padded(p.dim), v_stride = padded(p.value_dim);
  const std::int64_t group = p.heads / p.kv_heads;
  // Scores and their gradients, of all queries of a tile, share the cache with K and V.
  const std::int64_t step = tile_columns(p) < 48 ? tile_columns(p) : 48;
  const std::int64_t k_start = start(p, p.k, batch, kv_head);
  const std::int64_t v_start = start(p, p.v, batch, kv_head);
  Scratch scratch{memory};
  float* qt = scratch.take(kRows * p.dim);
  float* d_qt = scratch.take(kRows * p.dim);
  float* d_ot = scratch.take(kRows * p.value_dim);
  float* q_rows = scratch.take(kRows * k_stride);
  float* d_o_rows = scratch.take(kRows * v_stride);
  float* k_tile = scratch.take(kColumns * spread(p.dim));
  float* v_tile = scratch.take(kColumns * spread(p.value_dim));
  float* s = scratch.take(kColumns * kRows);
  float* d_s = scratch.take(kColumns * kRows);
  float* added = scratch.take(kColumns * L);
  float* lse = scratch.take(kRows);
  float* lse_low = scratch.take(kRows);
  float* delta = scratch.take(kRows);
  float* sums = scratch.take(kRows);

  for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (std::int64_t row = first_row; row < last_row; row += kRows) {
      const std::int64_t rows = last_row - row < kRows ? last_row - row : kRows;
      const std::int64_t strips = (rows + L - 1) / L;
      const std::int64_t q_start = start(p, p.q, batch, head);
      const std::int64_t o_start = start(p, p.out, batch, head);
      const std::int64_t d_o_start = start(p, p.d_out, batch, head);
      const std::int64_t lse_start = start(p, p.lse, batch, head);
      const Scores scores{p, start(p, p.mask, batch, head), start(p, p.bias, batch, head), added};
      transpose_in(p.q, q_start, row, rows, p.dim, p.scale * kLog2e, qt);
      transpose_in(p.d_out, d_o_start, row, rows, p.value_dim, 1.0f, d_ot);
      copy_in(p.q, q_start, row, rows, p.dim, k_stride, p.scale, q_rows);
      copy_in(p.d_out, d_o_start, row, rows, p.value_dim, v_stride, 1.0f, d_o_rows);
      for (std::int64_t i = 0; i < strips * L * p.dim; ++i) d_qt[i] = 0.0f;
      for (std::int64_t r = 0; r < strips * L; ++r) {
        // Lanes without a query and rows without a key have no weights: 2^(s - inf) is 0.
        lse[r] = INFINITY;
        lse_low[r] = delta[r] = sums[r] = 0.0f;
        if (r >= rows) continue;
        const float saved = read(p.lse.data, Kind::fp32, lse_start + (row + r) * p.lse.row);
        if (saved != -INFINITY) {
          // In base 2 it has more bits than a float: lost ones would scale the whole row.
          const double exact = static_cast<double>(saved) * 1.44269504088896340736;
          lse[r] = static_cast<float>(exact);
          if (saved - saved == 0.0f) lse_low[r] = static_cast<float>(exact - lse[r]);
        }
        double sum = 0.0;
        for (int c = 0; c < p.value_dim; ++c)
          sum += static_cast<double>(d_o_rows[r * v_stride + c]) *
                 read(p.out.data, p.out.kind, o_start + (row + r) * p.out.row + c * p.out.column);
        delta[r] = static_cast<float>(sum);
      }

      const std::int64_t seen = p.causal && row + rows < p.keys ? row + rows : p.keys;
      for (std::int64_t column = 0; column < seen; column += step) {
        const std::int64_t columns = seen - column < step ? seen - column : step;
        const Rows k = rows_of(p.k, k_start, column, columns, p.dim, true, k_tile);
        const Rows v = rows_of(p.v, v_start, column, columns, p.value_dim, false, v_tile);
        for (std::int64_t first = 0; first < rows; first += L) {
          const std::int64_t lanes = rows - first < L ? rows - first : L;
          scores.of(qt + first * p.dim, k, row + first, lanes, column, columns, s + first, kRows);
          product<2, Into::set, true>(d_ot + first * p.value_dim, L, v.data, v.stride,
                                      p.value_dim, d_s + first, kRows, columns, nullptr);
          F base[2], low[2], mean[2], sum[2];
          for (int half = 0; half < 2; ++half) {
            const std::int64_t at = first + half * W;
            base[half] = load(lse + at);
            low[half] = load(lse_low + at);
            mean[half] = load(delta + at);
            sum[half] = load(sums + at);
          }
          for (std::int64_t j = 0; j < columns; ++j)
            for (int half = 0; half < 2; ++half) {
              const std::int64_t at = j * kRows + first + half * W;
              const F weight = exp2(load(s + at) - base[half] - low[half]);
              sum[half] += weight;
              store(s + at, weight);
              store(d_s + at, weight * (load(d_s + at) - mean[half]));
            }
          for (int half = 0; half < 2; ++half) store(sums + first + half * W, sum[half]);
          if (p.d_bias.kind != Kind::none) {
            auto* to = reinterpret_cast<float*>(p.d_bias.data) + start(p, p.d_bias, batch, head) +
                       (row + first) * p.d_bias.row + column * p.d_bias.column;
            for (std::int64_t lane = 0; lane < lanes; ++lane)
              for (std::int64_t j = 0; j < columns; ++j)
                to[lane * p.d_bias.row + j * p.d_bias.column] += d_s[j * kRows + first + lane];
          }
          product<2, Into::add, false>(d_s + first, kRows, k.data, k.stride, columns,
                                       d_qt + first * p.dim, L, p.dim, nullptr);
        }
        // All queries of the tile at once: the sums are loaded and stored once for all of them.
        outer(d_o_rows, v_stride, p.value_dim, s, columns, rows, d_v + column * v_stride);
        outer(q_rows, k_stride, p.dim, d_s, columns, rows, d_k + column * k_stride);
      }

      const std::int64_t d_q_start = start(p, p.d_q, batch, head);
      for (std::int64_t r = 0; r < rows; ++r) {
        // The weights of a row add up to 1 but for the rounding of its saved log-sum-exp, which
        // scales them all alike.
        const float factor = sums[r] == 0.0f ? p.scale : p.scale / sums[r];
        for (int c = 0; c < p.dim; ++c)
          write(p.d_q.data, p.d_q.kind, d_q_start + (row + r) * p.d_q.row + c * p.d_q.column,
                d_qt[r / L * p.dim * L + c * L + r % L] * factor);
      }
    }
}

}  // namespace
}  // namespace perfkit::attention
