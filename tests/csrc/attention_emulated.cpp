// The kernels of csrc/cuda on the emulator against a reference in double precision.
//
//   attention_emulated <trials> <seed> forward|backward
//
// Random shapes: ragged lengths, grouped heads, causal, masks, biases, strides that allow no
// 16-byte copies. Everything that a kernel writes is poisoned first. Compiled once per head
// dimension (-DDIM=...), to keep compile times apart. With -DONLY_BF16 the first failure ends it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cuda/backward.h"
#include "cuda/forward.h"
#include "emulator.h"

namespace {

using namespace perfkit::cuda;
using emulated::Block;
using emulated::Machine;

constexpr int kDim = DIM;

// A tensor [batch, heads, rows, columns] of 16-bit or 32-bit elements with its own memory.
struct Data {
  std::vector<char> bytes;
  std::int64_t begin = 0;
  Tensor tensor;
  int batch = 0, heads = 0, rows = 0, columns = 0;

  char* at(int b, int h, int r, int c) const {
    return tensor.data + (b * tensor.batch[3] + h * tensor.head + r * tensor.row +
                          c * tensor.column) * element_bytes(tensor.kind);
  }
};

template <class Element>
double read(const Data& d, int b, int h, int r, int c) {
  const char* at = d.at(b, h, r, c);
  if (d.tensor.kind == Kind::fp32) return *reinterpret_cast<const float*>(at);
  if (d.tensor.kind == Kind::boolean)
    return *at != 0 ? 0.0 : -std::numeric_limits<double>::infinity();
  return Element::widen(*reinterpret_cast<const std::uint16_t*>(at));
}

enum class Lay { heads_outside, heads_inside, unaligned, columns_apart };

void allocate(Data& d, Kind kind, int batch, int heads, int rows, int columns, Lay lay) {
  d.batch = batch, d.heads = heads, d.rows = rows, d.columns = columns;
  Tensor& t = d.tensor;
  t.kind = kind;
  t.column = lay == Lay::columns_apart ? 2 : 1;
  const std::int64_t line = columns * t.column + (lay == Lay::unaligned ? 3 : 0);
  if (lay == Lay::heads_inside) {
    t.head = line, t.row = line * heads;
    t.batch[3] = t.row * rows;
  } else {
    t.row = line, t.head = line * rows;
    t.batch[3] = t.head * heads;
  }
  const std::int64_t bytes = element_bytes(kind);
  d.bytes.assign(static_cast<std::size_t>((batch * t.batch[3] + 8) * bytes + 16), '\xff');
  t.data = d.bytes.data();
  while (reinterpret_cast<std::uintptr_t>(t.data) % 16 != 0) ++t.data;
  t.vectors = lay == Lay::heads_inside || lay == Lay::heads_outside;
}

struct Trial {
  int batch, heads, kv_heads, queries, keys;
  bool causal;
  int mask;  // 0 none, 1 key padding, 2 added, 3 boolean of every pair
  bool bias, gradients;
  float scale;
  Lay lay;
};

template <class Element>
struct Case {
  Trial t;
  std::mt19937 random;
  Data q, k, v, d_out, out, lse, delta, d_q, d_k, d_v, mask, bias, d_scores;
  Problem p;

  float uniform() { return static_cast<float>(random() % 2001) / 1000.0f - 1.0f; }

  void fill(Data& d, float size) {
    for (int b = 0; b < d.batch; ++b)
      for (int h = 0; h < d.heads; ++h)
        for (int r = 0; r < d.rows; ++r)
          for (int c = 0; c < d.columns; ++c) {
            char* at = d.at(b, h, r, c);
            if (d.tensor.kind == Kind::boolean)
              *at = random() % 4 != 0;
            else if (d.tensor.kind == Kind::fp32)
              *reinterpret_cast<float*>(at) = size * uniform();
            else
              *reinterpret_cast<std::uint16_t*>(at) =
                  static_cast<std::uint16_t>(Element::pack(size * uniform(), 0.0f));
          }
  }

  Case(const Trial& trial, unsigned seed) : t(trial), random(seed) {
    constexpr bool kBf16 = std::is_same_v<Element, Bf16>;
    const Kind kind = kBf16 ? Kind::bf16 : Kind::fp16;
    p.batch[3] = t.batch;
    p.heads = t.heads, p.kv_heads = t.kv_heads, p.queries = t.queries, p.keys = t.keys;
    p.dim = kDim, p.scale = t.scale, p.causal = t.causal;
    allocate(q, kind, t.batch, t.heads, t.queries, kDim, t.lay);
    allocate(k, kind, t.batch, t.kv_heads, t.keys, kDim, t.lay);
    allocate(v, kind, t.batch, t.kv_heads, t.keys, kDim, Lay::heads_inside);
    allocate(d_out, kind, t.batch, t.heads, t.queries, kDim, t.lay);
    for (Data* d : {&q, &k, &v, &d_out}) fill(*d, 2.0f);
    for (Data* d : {&out, &d_q})
      allocate(*d, kind, t.batch, t.heads, t.queries, kDim, Lay::heads_inside);
    for (Data* d : {&d_k, &d_v})
      allocate(*d, kind, t.batch, t.kv_heads, t.keys, kDim, Lay::heads_inside);
    for (Data* d : {&lse, &delta})
      allocate(*d, Kind::fp32, t.batch, t.heads, t.queries, 1, Lay::heads_outside);
    if (t.mask != 0) {
      const Kind kinds[] = {Kind::none, Kind::boolean, kind, Kind::boolean};
      allocate(mask, kinds[t.mask], t.batch, t.mask == 1 ? 1 : t.heads,
               t.mask == 1 ? 1 : t.queries, t.keys, Lay::heads_outside);
      fill(mask, 3.0f);
      if (t.mask == 1) mask.tensor.head = mask.tensor.row = 0;  // broadcast
      p.mask = mask.tensor;
    }
    if (t.bias) {
      allocate(bias, Kind::fp32, t.batch, t.heads, t.queries, t.keys, Lay::heads_outside);
      allocate(d_scores, Kind::fp32, t.batch, t.heads, t.queries, t.keys, Lay::heads_outside);
      std::fill(d_scores.bytes.begin(), d_scores.bytes.end(), '\0');
      fill(bias, 2.0f);
      p.bias = bias.tensor;
      p.d_scores = d_scores.tensor;
    }
    p.q = q.tensor, p.k = k.tensor, p.v = v.tensor, p.out = out.tensor, p.lse = lse.tensor;
    if (t.gradients) {
      p.d_out = d_out.tensor, p.d_q = d_q.tensor, p.d_k = d_k.tensor, p.d_v = d_v.tensor;
      p.delta = delta.tensor;
    }
  }

  double added(int b, int h, int i, int j) const {
    double sum = 0.0;
    if (t.mask != 0) sum += read<Element>(mask, b, h, i, j);
    if (t.bias) sum += read<Element>(bias, b, h, i, j);
    if (t.causal && j > i) sum = -std::numeric_limits<double>::infinity();
    return sum;
  }

  // Largest difference over the largest magnitude, of everything that the kernels wrote.
  double worst = 0.0;
  std::string where;
  void compare(const char* name, const Data& d, const std::vector<double>& want) {
    double largest = 0.05, difference = 0.0;
    std::size_t at = 0;
    for (int b = 0; b < d.batch; ++b)
      for (int h = 0; h < d.heads; ++h)
        for (int r = 0; r < d.rows; ++r)
          for (int c = 0; c < d.columns; ++c, ++at) {
            const double have = read<Element>(d, b, h, r, c), should = want[at];
            if (have == should) continue;  // infinities too
            if (std::isfinite(should)) largest = std::max(largest, std::abs(should));
            const double off = std::abs(have - should);
            difference = off <= difference ? difference : off;  // a NaN sticks
            if (!(off <= 1e30)) difference = 1e30;
          }
    if (difference / largest > worst) worst = difference / largest, where = name;
  }

  void check() {
    const int group = t.heads / t.kv_heads;
    const auto index = [](const Data& d, int b, int h, int r, int c) {
      return ((static_cast<std::size_t>(b) * d.heads + h) * d.rows + r) * d.columns + c;
    };
    const auto size = [](const Data& d) {
      return static_cast<std::size_t>(d.batch) * d.heads * d.rows * d.columns;
    };
    std::vector<double> o(size(q)), l(size(lse)), gq(size(q)), gk(size(k)), gv(size(v)),
        gs(t.bias ? size(bias) : 0);
    std::vector<double> weights(t.keys), products(t.keys);
    for (int b = 0; b < t.batch; ++b)
      for (int h = 0; h < t.heads; ++h)
        for (int i = 0; i < t.queries; ++i) {
          const int kv = h / group;
          double largest = -std::numeric_limits<double>::infinity(), total = 0.0, delta_i = 0.0;
          for (int j = 0; j < t.keys; ++j) {
            double s = 0.0;
            for (int c = 0; c < kDim; ++c)
              s += read<Element>(q, b, h, i, c) * read<Element>(k, b, kv, j, c);
            weights[j] = s * t.scale + added(b, h, i, j);
            largest = std::max(largest, weights[j]);
          }
          for (double& w : weights) {
            w = std::isinf(largest) ? 0.0 : std::exp(w - largest);
            total += w;
          }
          l[index(lse, b, h, i, 0)] = largest + std::log(total);
          if (total == 0.0) l[index(lse, b, h, i, 0)] = largest;
          for (int j = 0; j < t.keys; ++j) {
            weights[j] = total == 0.0 ? 0.0 : weights[j] / total;
            products[j] = 0.0;
            for (int c = 0; c < kDim; ++c) {
              const double value = read<Element>(v, b, kv, j, c);
              o[index(q, b, h, i, c)] += weights[j] * value;
              products[j] += read<Element>(d_out, b, h, i, c) * value;
            }
            delta_i += weights[j] * products[j];
          }
          for (int j = 0; j < t.keys; ++j) {
            const double ds = weights[j] * (products[j] - delta_i);
            if (t.bias) gs[index(bias, b, h, i, j)] = ds;
            for (int c = 0; c < kDim; ++c) {
              gq[index(q, b, h, i, c)] += t.scale * ds * read<Element>(k, b, kv, j, c);
              gk[index(k, b, kv, j, c)] += t.scale * ds * read<Element>(q, b, h, i, c);
              gv[index(v, b, kv, j, c)] += weights[j] * read<Element>(d_out, b, h, i, c);
            }
          }
        }
    compare("out", out, o);
    compare("lse", lse, l);
    if (!t.gradients) return;
    compare("d_q", d_q, gq);
    compare("d_k", d_k, gk);
    compare("d_v", d_v, gv);
    if (t.bias) compare("d_scores", d_scores, gs);
  }

  int conflicts = 0;
  template <class Body>
  void launch(int blocks, int threads, int shared_bytes, Body body) {
    for (int block = 0; block < blocks; ++block) {
      Block run(threads, shared_bytes, block, static_cast<unsigned>(random()));
      run.run([&] { body(run.shared()); });
      conflicts += run.bank_conflicts;
    }
  }
  static int tiles(int length, int rows) { return (length + rows - 1) / rows; }

  template <bool kGeneral>
  void run() {
    using Forward = ForwardShape<Element, kDim, kGeneral>;
    launch(t.batch * t.heads * tiles(t.queries, Forward::kRows), Forward::kThreads,
           Forward::kSharedBytes, [&](char* shared) { forward<Machine, Forward>(p, shared); });
    if (!t.gradients) return;
    launch(t.batch * t.heads * tiles(t.queries, 4), 128, 16,
           [&](char*) { delta_rows<Machine, Element, 128>(p); });
    using Kv = BackwardKvShape<Element, kDim, kGeneral>;
    launch(t.batch * t.kv_heads * tiles(t.keys, Kv::kRows), Kv::kThreads, Kv::kSharedBytes,
           [&](char* shared) { backward_kv<Machine, Kv>(p, shared); });
    using Q = BackwardQShape<Element, kDim, kGeneral>;
    launch(t.batch * t.heads * tiles(t.queries, Q::kRows), Q::kThreads, Q::kSharedBytes,
           [&](char* shared) { backward_q<Machine, Q>(p, shared); });
  }
};

template <class Element>
bool trial(unsigned seed, bool gradients) {
  std::mt19937 random(seed);
  const auto below = [&](unsigned n) { return static_cast<int>(random() % n); };
  Trial t;
  t.batch = 1 + below(2);
  t.kv_heads = 1 + below(2);
  t.heads = t.kv_heads * (1 + below(2));
  const int lengths[] = {1, 7, 16, 63, 64, 65, 128, 130, 150};
  t.queries = lengths[below(9)];
  t.keys = below(8) == 0 ? t.queries : lengths[below(9)];
  if (t.queries > 100 && t.keys > 100) t.batch = 1, t.heads = t.kv_heads;
  t.causal = below(3) == 0;
  t.mask = below(2) == 0 ? 0 : below(4);
  t.bias = below(4) == 0;
  t.gradients = gradients;
  t.scale = below(6) == 0 ? -0.1f : 1.0f / std::sqrt(static_cast<float>(kDim));
  t.lay = static_cast<Lay>(below(2) == 0 ? below(2) : below(4));
  Case<Element> c(t, seed * 7919 + 1);
  std::string failure;
  try {
    if (c.p.general())
      c.template run<true>();
    else
      c.template run<false>();
    c.check();
  } catch (const std::exception& error) {
    failure = error.what();
  }
  const double allowed = std::is_same_v<Element, Bf16> ? 2.5e-2 : 4e-3;
  const bool good = failure.empty() && c.worst <= allowed && c.conflicts == 0;
  std::printf("%s seed %u D %d B %d H %d/%d Sq %d Sk %d causal %d mask %d bias %d lay %d "
              "general %d: worst %.1e of %s, %d bank conflicts%s%s\n",
              good ? "ok  " : "FAIL", seed, kDim, t.batch, t.heads, t.kv_heads, t.queries, t.keys,
              t.causal, t.mask, t.bias, static_cast<int>(t.lay), c.p.general(), c.worst,
              c.where.c_str(), c.conflicts, failure.empty() ? "" : ": ", failure.c_str());
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int trials = std::atoi(argv[1]);
  const auto first = static_cast<unsigned>(std::atoi(argv[2]));
  const bool gradients = std::string(argv[3]) == "backward";
  bool good = true;
  for (int i = 0; i < trials; ++i) {
    const unsigned seed = first + static_cast<unsigned>(i);
#if defined(ONLY_BF16)
    good = trial<Bf16>(seed, gradients) && good;
    if (!good) break;
#else
    good = (seed % 4 == 3 ? trial<Fp16>(seed, gradients) : trial<Bf16>(seed, gradients)) && good;
#endif
  }
  return good ? 0 : 1;
}
