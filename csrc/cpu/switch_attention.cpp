#include "cpu/switch_attention.h"

#include <algorithm>

#include "cpu/session.h"

namespace perfkit::exchange {
namespace {

using attention::Kernels;
using attention::Kind;
using attention::kRows;
using attention::padded;
using attention::Problem;

struct Parts {
  Part q, k, v, out;
};

Parts parts_of(const Problem& p, const Tensor& q, const Tensor& k, const Tensor& v,
               const Tensor& out) {
  const int group = static_cast<int>(p.heads / p.kv_heads);
  return {{q, group, p.dim}, {k, 1, p.dim}, {v, 1, p.value_dim}, {out, group, p.value_dim}};
}

// The tensor that begins at one (batch, position, head) of another.
Tensor at(const Tensor& t, std::int64_t batch, std::int64_t position, std::int64_t head) {
  Tensor out = t;
  if (t.kind == Kind::none) return out;
  const int element = t.kind == Kind::fp32 ? 4 : t.kind == Kind::bf16 ? 2 : 1;
  out.data += (batch * t.batch[2] + position * t.batch[3] + head * t.head) * element;
  return out;
}

// [head][row][column], contiguous.
Tensor dense(char* data, Kind kind, std::int64_t rows, int dim) {
  Tensor out;
  out.data = data;
  out.kind = kind;
  out.head = rows * dim;
  out.row = dim;
  out.column = 1;
  return out;
}

// One unit as a problem of its own; exchanged tensors are filled in by the caller.
Problem unit_problem(const Segment& s, std::int64_t batch, std::int64_t position,
                     std::int64_t kv_head) {
  Problem p = s.problem;
  const std::int64_t group = p.heads / p.kv_heads;
  for (std::int64_t& size : p.batch) size = 1;
  p.heads = group;
  p.kv_heads = 1;
  p.queries = p.keys = s.geometry.rows;
  for (Tensor* t : {&p.q, &p.mask, &p.out, &p.lse, &p.d_out, &p.d_q})
    *t = at(*t, batch, position, kv_head * group);
  for (Tensor* t : {&p.k, &p.v, &p.d_k, &p.d_v}) *t = at(*t, batch, position, kv_head);
  return p;
}

// Memory of one thread, handed out piece by piece.
struct Arena {
  char* next;
  char* take(std::int64_t bytes) {
    char* out = next;
    next += rounded(bytes);
    return out;
  }
};

std::int64_t element_bytes(const Problem& p) { return p.q.kind == Kind::bf16 ? 2 : 4; }

}  // namespace

std::int64_t slot_bytes(const Segment& s) {
  const Parts parts = parts_of(s.problem, s.problem.q, s.problem.k, s.problem.v, s.problem.q);
  std::int64_t bytes = 0;
  if (s.pull) bytes = Blocks(s.geometry, {parts.q, parts.k, parts.v}).slot();
  if (s.push) bytes = std::max(bytes, Blocks(s.geometry, {parts.out}).slot());
  return bytes;
}

Status forward(const Segment& s, const Kernels& kernels, Endpoint& endpoint,
               const Settings& settings) {
  const Problem& whole = s.problem;
  const std::int64_t rows = s.geometry.rows, group = whole.heads / whole.kv_heads;
  const Parts parts = parts_of(whole, whole.q, whole.k, whole.v, whole.out);
  std::vector<Part> in, out;
  if (s.pull) in = {parts.q, parts.k, parts.v};
  if (s.push) out = {parts.out};
  Session session(s.geometry, in, out, endpoint, settings);

  const std::int64_t element = element_bytes(whole);
  const std::int64_t q_bytes = group * rows * whole.dim * element;
  const std::int64_t k_bytes = rows * whole.dim * element;
  const std::int64_t v_bytes = rows * whole.value_dim * element;
  const std::int64_t tile_bytes = kRows * whole.value_dim * element;
  const std::int64_t per_worker = rounded(kernels.forward_scratch(whole)) + rounded(q_bytes) +
                                  rounded(k_bytes) + rounded(v_bytes) + rounded(tile_bytes);
  const Memory memory = aligned(per_worker * settings.threads);

  return session.run([&](int worker, std::int64_t batch, std::int64_t unit, std::uint32_t frame) {
    Arena arena{memory.get() + per_worker * worker};
    char* scratch = arena.take(kernels.forward_scratch(whole));
    const std::int64_t kv_head = unit % whole.kv_heads, position = unit / whole.kv_heads;
    Problem p = unit_problem(s, batch, position, kv_head);
    if (s.pull) {
      const bool saved = s.saved_q.kind != Kind::none;
      char* q = saved ? at(s.saved_q, batch, position, kv_head * group).data : arena.take(q_bytes);
      char* k = saved ? at(s.saved_k, batch, position, kv_head).data : arena.take(k_bytes);
      char* v = saved ? at(s.saved_v, batch, position, kv_head).data : arena.take(v_bytes);
      for (int head = 0; head < group; ++head)
        session.gather(0, batch, unit, frame, head, q + head * (q_bytes / group));
      session.gather(1, batch, unit, frame, 0, k);
      session.gather(2, batch, unit, frame, 0, v);
      p.q = dense(q, whole.q.kind, rows, whole.dim);
      p.k = dense(k, whole.q.kind, rows, whole.dim);
      p.v = dense(v, whole.q.kind, rows, whole.value_dim);
    }
    char* tile = s.push ? arena.take(tile_bytes) : nullptr;
    const Tensor saved = at(s.saved_out, batch, position, kv_head * group);
    for (int head = 0; head < group; ++head)
      for (std::int64_t row = 0; row < rows; row += kRows) {
        const std::int64_t last = std::min<std::int64_t>(rows, row + kRows);
        if (s.push) {
          // The kernel finds row `row` of head `head` at the beginning of the tile.
          char* to = saved.kind == Kind::none
                         ? tile
                         : saved.data + (head * rows + row) * whole.value_dim * element;
          p.out = dense(to - row * whole.value_dim * element, whole.q.kind, 0, whole.value_dim);
          kernels.forward(p, 0, head, row, scratch);
          session.scatter(0, batch, unit, frame, head, row, last, to);
        } else {
          kernels.forward(p, 0, head, row, scratch);
        }
      }
  });
}

Status backward(const Segment& s, const Kernels& kernels, Endpoint& endpoint,
                const Settings& settings) {
  const Problem& whole = s.problem;
  const std::int64_t rows = s.geometry.rows, group = whole.heads / whole.kv_heads;
  const Parts parts = parts_of(whole, whole.d_q, whole.d_k, whole.d_v, whole.d_out);
  std::vector<Part> in, out;
  if (s.push) in = {parts.out};
  if (s.pull) out = {parts.q, parts.k, parts.v};
  Session session(s.geometry, in, out, endpoint, settings);

  const std::int64_t element = element_bytes(whole);
  const std::int64_t q_bytes = group * rows * whole.dim * element;
  const std::int64_t o_bytes = group * rows * whole.value_dim * element;
  const std::int64_t dims[] = {whole.dim, whole.value_dim};
  const std::int64_t sums = rows * (padded(whole.dim) + padded(whole.value_dim));
  const std::int64_t row_bytes = std::max(dims[0], dims[1]) * rows * element;
  const std::int64_t per_worker = rounded(kernels.backward_scratch(whole)) + rounded(q_bytes) +
                                  rounded(o_bytes) + rounded(sums * 4) + rounded(row_bytes);
  const Memory memory = aligned(per_worker * settings.threads);

  return session.run([&](int worker, std::int64_t batch, std::int64_t unit, std::uint32_t frame) {
    Arena arena{memory.get() + per_worker * worker};
    char* scratch = arena.take(kernels.backward_scratch(whole));
    auto* d_k = reinterpret_cast<float*>(arena.take(sums * 4));
    float* d_v = d_k + rows * padded(whole.dim);
    std::fill(d_k, d_k + sums, 0.0f);
    const std::int64_t kv_head = unit % whole.kv_heads, position = unit / whole.kv_heads;
    Problem p = unit_problem(s, batch, position, kv_head);
    if (s.push) {
      char* d_out = arena.take(o_bytes);
      for (int head = 0; head < group; ++head)
        session.gather(0, batch, unit, frame, head, d_out + head * (o_bytes / group));
      p.d_out = dense(d_out, whole.q.kind, rows, whole.value_dim);
    }
    char* d_q = s.pull ? arena.take(q_bytes) : nullptr;
    if (s.pull) p.d_q = dense(d_q, whole.q.kind, rows, whole.dim);
    kernels.backward(p, 0, 0, 0, rows, d_k, d_v, scratch);
    if (!s.pull) {
      attention::write_sums(p.d_k, d_k, rows, whole.dim);
      attention::write_sums(p.d_v, d_v, rows, whole.value_dim);
      return;
    }
    for (int head = 0; head < group; ++head)
      session.scatter(0, batch, unit, frame, head, 0, rows, d_q + head * (q_bytes / group));
    char* row_memory = arena.take(row_bytes);
    const float* totals[] = {d_k, d_v};
    for (int which = 0; which < 2; ++which) {
      const int dim = static_cast<int>(dims[which]);
      attention::write_sums(dense(row_memory, whole.q.kind, rows, dim), totals[which], rows, dim);
      session.scatter(static_cast<std::size_t>(which) + 1, batch, unit, frame, 0, 0, rows,
                      row_memory);
    }
  });
}

}  // namespace perfkit::exchange
