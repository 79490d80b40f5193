// Fused switch + attention with ranks as threads of one process, for the sanitizers.
//
//   fused <trials> <seed>     random shapes, ranks, frames, threads, directions; pull, push, both
//
// Every rank's result is compared with attention over the whole tensor.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "cpu/heap.h"
#include "cpu/switch_attention.h"

namespace perfkit::attention {
// The base instruction set alone: sanitizers see through it, and every processor runs it.
const Kernels& avx2_kernels() { return portable_kernels(); }
const Kernels& avx512_kernels() { return portable_kernels(); }
}  // namespace perfkit::attention

namespace {

using namespace perfkit;
using attention::Kind;
using attention::Tensor;
using exchange::Segment;

struct Trial {
  Segment segment;
  exchange::Settings settings;
  unsigned seed;
};

// [batch][row][position][head][column] of one placement, as the kernels address it.
struct Array {
  std::vector<float> data;
  std::int64_t rows, positions;
  int heads, dim;
  Array(std::int64_t batch, std::int64_t rows_, std::int64_t positions_, int heads_, int dim_)
      : data(batch * rows_ * positions_ * heads_ * dim_), rows(rows_), positions(positions_),
        heads(heads_), dim(dim_) {}
  float& at(std::int64_t b, std::int64_t r, std::int64_t p, int h, int c) {
    return data[(((b * rows + r) * positions + p) * heads + h) * dim + c];
  }
  Tensor tensor() {
    Tensor t;
    t.data = reinterpret_cast<char*>(data.data());
    t.kind = Kind::fp32;
    t.column = 1;
    t.head = dim;
    t.batch[3] = heads * dim;
    t.row = positions * t.batch[3];
    t.batch[2] = rows * t.row;
    return t;
  }
};

float value(unsigned seed, int which, std::int64_t b, std::int64_t r, std::int64_t p, int h, int c) {
  std::uint32_t x = seed * 7919u + which;
  for (std::int64_t part : {b, r, p, std::int64_t{h}, std::int64_t{c}})
    x = (x ^ static_cast<std::uint32_t>(part + 1)) * 0x9e3779b1u;
  return static_cast<float>(static_cast<std::int32_t>(x ^ x >> 15)) / 2147483648.0f;
}

struct Placed {
  std::int64_t first_row, first_position;
  Array array;
};

// A rank's shard by rows or by positions.
Placed shard(const Trial& t, std::uint32_t rank, bool by_rows, int heads, int dim, int which) {
  const exchange::Geometry& g = t.segment.geometry;
  const exchange::Balanced rows = g.row_shards(), positions = g.position_shards();
  Placed out{by_rows ? rows.begin(rank) : 0, by_rows ? 0 : positions.begin(rank),
             Array(g.batch, by_rows ? rows.size(rank) : g.rows,
                   by_rows ? g.positions : positions.size(rank), heads, dim)};
  Array& a = out.array;
  for (std::int64_t b = 0; b < g.batch; ++b)
    for (std::int64_t r = 0; r < a.rows; ++r)
      for (std::int64_t p = 0; p < a.positions; ++p)
        for (int h = 0; h < heads; ++h)
          for (int c = 0; c < dim; ++c)
            a.at(b, r, p, h, c) = value(t.seed, which, b, r + out.first_row,
                                        p + out.first_position, h, c);
  return out;
}

// One row of the result by the definition.
double expected(const Trial& t, std::int64_t b, std::int64_t r, std::int64_t p, int h, int c) {
  const attention::Problem& problem = t.segment.problem;
  const int kv = h / static_cast<int>(problem.heads / problem.kv_heads);
  double sum = 0, total = 0;
  const std::int64_t seen = problem.causal ? r + 1 : t.segment.geometry.rows;
  for (std::int64_t j = 0; j < seen; ++j) {
    double score = 0;
    for (int d = 0; d < problem.dim; ++d)
      score += double{value(t.seed, 0, b, r, p, h, d)} * value(t.seed, 1, b, j, p, kv, d);
    const double weight = std::exp(score * problem.scale);
    total += weight;
    sum += weight * value(t.seed, 2, b, j, p, kv, c);
  }
  return sum / total;
}

bool run_rank(const Trial& t, std::uint32_t rank, char* const* bases,
              const protocol::Layout& layout) {
  Segment s = t.segment;
  s.geometry.rank = rank;
  attention::Problem& p = s.problem;
  const int heads = static_cast<int>(p.heads), kv = static_cast<int>(p.kv_heads);
  const std::int64_t positions = s.geometry.position_shards().size(rank);
  exchange::Endpoint endpoint(layout, rank, bases, 20'000'000'000);
  for (int step = 0; step < 2; ++step) {
    Placed q = shard(t, rank, s.pull, heads, p.dim, 0), k = shard(t, rank, s.pull, kv, p.dim, 1);
    Placed v = shard(t, rank, s.pull, kv, p.value_dim, 2);
    Placed out = shard(t, rank, s.push, heads, p.value_dim, 3);
    Array lse(s.geometry.batch, s.geometry.rows, positions, heads, 1);
    Array saved_q(s.geometry.batch, s.geometry.rows, positions, heads, p.dim);
    Array saved_k(s.geometry.batch, s.geometry.rows, positions, kv, p.dim);
    Array saved_v(s.geometry.batch, s.geometry.rows, positions, kv, p.value_dim);
    Array saved_out(s.geometry.batch, s.geometry.rows, positions, heads, p.value_dim);
    // Saved tensors are contiguous per head: [batch][position][head][row][column].
    const auto dense = [&](Array& a) {
      Tensor tensor = a.tensor();
      tensor.row = a.dim;
      tensor.head = a.rows * a.dim;
      tensor.batch[3] = a.heads * tensor.head;
      tensor.batch[2] = a.positions * tensor.batch[3];
      return tensor;
    };
    p.q = q.array.tensor();
    p.k = k.array.tensor();
    p.v = v.array.tensor();
    p.out = out.array.tensor();
    p.lse = dense(lse);
    if (s.pull) {
      s.saved_q = dense(saved_q);
      s.saved_k = dense(saved_k);
      s.saved_v = dense(saved_v);
    }
    if (s.push) s.saved_out = dense(saved_out);
    if (exchange::forward(s, attention::portable_kernels(), endpoint, t.settings) !=
        exchange::Status::ok)
      return false;
    for (std::int64_t b = 0; b < s.geometry.batch; ++b)
      for (std::int64_t r = 0; r < out.array.rows; ++r)
        for (std::int64_t o = 0; o < out.array.positions; ++o)
          for (int h = 0; h < heads; ++h)
            for (int c = 0; c < p.value_dim; ++c) {
              const double wanted =
                  expected(t, b, r + out.first_row, o + out.first_position, h, c);
              if (!(std::fabs(out.array.at(b, r, o, h, c) - wanted) < 1e-4)) return false;
            }
    // Backward: the same exchanges the other way round; its values are checked in Python.
    Segment back = s;
    if (s.pull) {
      back.problem.q = s.saved_q;
      back.problem.k = s.saved_k;
      back.problem.v = s.saved_v;
    }
    if (s.push) back.problem.out = s.saved_out;
    Placed d_q = q, d_k = k, d_v = v;
    back.problem.d_out = p.out;
    back.problem.d_q = d_q.array.tensor();
    back.problem.d_k = d_k.array.tensor();
    back.problem.d_v = d_v.array.tensor();
    if (exchange::backward(back, attention::portable_kernels(), endpoint, t.settings) !=
        exchange::Status::ok)
      return false;
  }
  return true;
}

bool run_trial(const Trial& t) {
  protocol::Layout layout;
  layout.ranks = t.segment.geometry.ranks;
  layout.frames = t.segment.geometry.frames;
  layout.subtiles = 2;
  Segment sized = t.segment;
  sized.problem.q.kind = sized.problem.k.kind = sized.problem.v.kind = Kind::fp32;
  layout.slot_bytes = static_cast<std::uint64_t>(exchange::slot_bytes(sized));
  std::vector<char*> bases;
  for (std::uint32_t rank = 0; rank < layout.ranks; ++rank) {
    auto* base = static_cast<char*>(std::aligned_alloc(protocol::kPage, layout.bytes()));
    std::memset(base, 0xff, layout.bytes());  // NaN: nothing may be read before it is written
    HeapInit init;
    init.rank = rank;
    init.first_epoch = ~0ull - 2;
    initialise(base, layout, init);
    bases.push_back(base);
  }
  std::vector<char> good(layout.ranks);
  std::vector<std::thread> ranks;
  for (std::uint32_t rank = 0; rank < layout.ranks; ++rank)
    ranks.emplace_back([&, rank] { good[rank] = run_rank(t, rank, bases.data(), layout); });
  for (std::thread& rank : ranks) rank.join();
  for (char* base : bases) std::free(base);
  for (char one : good)
    if (!one) return false;
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int trials = std::atoi(argv[1]);
  for (int i = 0; i < trials; ++i) {
    Trial t;
    t.seed = static_cast<unsigned>(std::atoi(argv[2]) + i);
    std::mt19937 random(t.seed);
    Segment& s = t.segment;
    s.geometry.batch = 1 + random() % 2;
    s.geometry.rows = 1 + random() % (i % 8 == 0 ? 80 : 12);
    s.geometry.positions = random() % 6;
    s.geometry.ranks = 1 + random() % 4;
    s.geometry.frames = 1 + random() % 4;
    s.geometry.kv_heads = s.problem.kv_heads = 1 + random() % 2;
    s.problem.heads = s.problem.kv_heads * (1 + random() % 2);
    s.problem.dim = 1 + static_cast<int>(random() % 9);
    s.problem.value_dim = 1 + static_cast<int>(random() % 9);
    s.problem.scale = 0.5f;
    s.problem.causal = random() % 2;
    s.pull = i % 3 != 1;
    s.push = i % 3 != 0;
    t.settings.threads = 1 + static_cast<int>(random() % 3);
    t.settings.in_order = random() % 2;
    t.settings.link = random() % 4 == 0 ? 1e8 : 0;
    if (!run_trial(t)) {
      std::printf("seed %u: wrong\n", t.seed);
      return 1;
    }
  }
  std::printf("%d trials\n", trials);
  return 0;
}
