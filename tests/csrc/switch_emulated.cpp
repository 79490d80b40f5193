// Attention fused with the switch, on the emulator: virtual ranks in one launch, several operations
// on one heap, uneven and empty shards, against a reference in double precision.
//
//   switch_emulated <trials> <seed>       push and pull, everything written is checked
//   switch_emulated killed <seed>         one rank does not take part: the others must find out
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cpu/heap.h"
#include "cuda/switch.h"
#include "emulator.h"
#include "protocol/host_memory.h"

namespace {

using namespace perfkit::cuda;
using emulated::Block;
using emulated::Machine;
using perfkit::protocol::HostMemory;

constexpr int kDim = DIM;
using Shape = SwitchShape<Bf16, kDim>;
using Bits = std::vector<std::uint16_t>;

// [batch, position, row, head, column], dense.
struct Array {
  int batches = 0, positions = 0, rows = 0, heads = 0;
  Bits bits;
  void size(int b, int t, int r, int h) {
    batches = b, positions = t, rows = r, heads = h;
    bits.assign(static_cast<std::size_t>(b) * t * r * h * kDim + 8, 0xffff);
  }
  std::uint16_t& at(int b, int t, int r, int h, int c) {
    const std::size_t row = (static_cast<std::size_t>(b) * positions + t) * rows + r;
    return bits[(row * heads + h) * kDim + c];
  }
  Tensor tensor() {
    Tensor t;
    t.data = reinterpret_cast<char*>(bits.data());
    t.kind = Kind::bf16;
    t.vectors = true;
    t.column = 1, t.head = kDim, t.row = heads * t.head;
    t.batch[3] = rows * t.row;
    t.batch[2] = positions * t.batch[3];
    return t;
  }
};

struct World {
  std::mt19937 random;
  int ranks, batches, positions, rows, heads, kv_heads;
  bool causal;
  Switch s;
  std::vector<std::vector<char>> heaps;
  std::vector<std::vector<std::uint32_t>> counters;

  int below(int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); }
  void split(std::int32_t* begins, int length) {
    std::vector<int> cuts{0, length};
    for (int i = 1; i < ranks; ++i) cuts.push_back(below(length + 1));
    std::sort(cuts.begin(), cuts.end());
    std::copy(cuts.begin(), cuts.end(), begins);
  }

  explicit World(unsigned seed, std::int64_t timeout_ns) : random(seed) {
    ranks = 1 + below(4), batches = 1 + below(2), positions = 1 + below(4);
    rows = 1 + below(150), kv_heads = 1 + below(2), heads = kv_heads * (1 + below(2));
    causal = below(3) == 0;
    split(s.positions, positions);
    split(s.rows, rows);
    s.batches = batches, s.heads = heads, s.kv_heads = kv_heads, s.dim = kDim;
    s.timeout_ns = timeout_ns;
    s.layout.ranks = static_cast<std::uint32_t>(ranks);
    s.layout.frames = static_cast<std::uint32_t>(positions);
    const int most = batches * positions * rows * (heads + 2 * kv_heads) * kDim * 2;
    s.layout.slot_bytes = static_cast<std::uint64_t>(most);
    for (int rank = 0; rank < ranks; ++rank) {
      heaps.emplace_back(s.layout.bytes() + 4096, '\xff');
      char* base = heaps.back().data();
      while (reinterpret_cast<std::uintptr_t>(base) % 4096 != 0) ++base;
      s.bases[rank] = base;
      perfkit::HeapInit init;
      init.rank = static_cast<std::uint32_t>(rank);
      init.first_epoch = seed % 2 == 0 ? 0 : ~0ull - 1;  // over the end of 64 bits
      perfkit::initialise(base, s.layout, init);
      counters.emplace_back(positions + 1, 0u);
      s.here[rank].rank = static_cast<std::uint32_t>(rank);
      s.here[rank].counters = counters.back().data();
    }
    s.ranks_here = ranks;
  }

  void fill(Array& a) {
    for (std::uint16_t& bits : a.bits)
      bits = static_cast<std::uint16_t>(
          Bf16::pack(static_cast<float>(below(2001)) / 500.0f - 2.0f, 0.0f));
  }

  template <class Body>
  void launch(int blocks, int threads, int shared_bytes, Body body) {
    s.blocks = blocks;
    for (int block = 0; block < blocks * s.ranks_here; ++block) {
      Block run(threads, shared_bytes, block, static_cast<unsigned>(random()));
      run.run([&] { body(run.shared()); });
    }
  }
  int attention_blocks() const {
    int most = 1;
    for (int rank = 0; rank < ranks; ++rank)
      most = std::max(most, s.positions[rank + 1] - s.positions[rank]);
    return most * batches * heads * ((rows + Shape::kRows - 1) / Shape::kRows);
  }
  void problem(SwitchRank& me, int own) {
    Problem& p = me.problem;
    p = Problem{};
    p.batch[2] = batches, p.batch[3] = own;
    p.heads = heads, p.kv_heads = kv_heads, p.queries = p.keys = rows, p.dim = kDim;
    p.scale = 1.0f / std::sqrt(static_cast<float>(kDim)), p.causal = causal;
  }

  Array q, k, v, want;
  void reference() {
    q.size(batches, positions, rows, heads);
    k.size(batches, positions, rows, kv_heads);
    v.size(batches, positions, rows, kv_heads);
    want.size(batches, positions, rows, heads);
    fill(q), fill(k), fill(v);
    const double scale = 1.0 / std::sqrt(static_cast<double>(kDim));
    std::vector<double> w(rows);
    for (int b = 0; b < batches; ++b)
      for (int t = 0; t < positions; ++t)
        for (int h = 0; h < heads; ++h)
          for (int i = 0; i < rows; ++i) {
            const int kv = h / (heads / kv_heads), end = causal ? i + 1 : rows;
            double total = 0.0;
            for (int j = 0; j < end; ++j) {
              double sum = 0.0;
              for (int c = 0; c < kDim; ++c)
                sum += static_cast<double>(Bf16::widen(q.at(b, t, i, h, c))) *
                       Bf16::widen(k.at(b, t, j, kv, c));
              w[j] = std::exp(sum * scale);
              total += w[j];
            }
            for (int c = 0; c < kDim; ++c) {
              double sum = 0.0;
              for (int j = 0; j < end; ++j) sum += w[j] * Bf16::widen(v.at(b, t, j, kv, c));
              want.at(b, t, i, h, c) = Bf16::narrow(static_cast<float>(sum / total));
            }
          }
  }

  // The part of `from` with positions [t0, t1) and rows [r0, r1).
  static Array part(Array& from, int t0, int t1, int r0, int r1) {
    Array out;
    out.size(from.batches, t1 - t0, r1 - r0, from.heads);
    for (int b = 0; b < from.batches; ++b)
      for (int t = t0; t < t1; ++t)
        for (int r = r0; r < r1; ++r)
          for (int h = 0; h < from.heads; ++h)
            for (int c = 0; c < kDim; ++c)
              out.at(b, t - t0, r - r0, h, c) = from.at(b, t, r, h, c);
    return out;
  }
  bool same(Array& have, int t0, int r0) {
    double off = 0.0;
    for (int b = 0; b < have.batches; ++b)
      for (int t = 0; t < have.positions; ++t)
        for (int r = 0; r < have.rows; ++r)
          for (int h = 0; h < have.heads; ++h)
            for (int c = 0; c < kDim; ++c) {
              const double d = std::abs(Bf16::widen(have.at(b, t, r, h, c)) -
                                        Bf16::widen(want.at(b, t + t0, r + r0, h, c)));
              off = d <= off ? off : d;
              if (!(d < 10.0)) off = 10.0;
            }
    return off < 4e-2;
  }
  std::vector<Array> split_inputs(bool by_position) {
    std::vector<Array> parts;
    for (int rank = 0; rank < ranks; ++rank)
      for (Array* a : {&q, &k, &v})
        parts.push_back(by_position
                            ? part(*a, s.positions[rank], s.positions[rank + 1], 0, rows)
                            : part(*a, 0, positions, s.rows[rank], s.rows[rank + 1]));
    return parts;
  }
  bool counters_clear() const {
    for (const auto& rank : counters)
      for (std::uint32_t value : rank)
        if (value != 0) return false;
    return true;
  }

  bool push() {
    reference();
    std::vector<Array> in = split_inputs(true), out(ranks);
    for (int rank = 0; rank < ranks; ++rank) {
      SwitchRank& me = s.here[rank];
      problem(me, s.positions[rank + 1] - s.positions[rank]);
      me.problem.q = in[3 * rank].tensor(), me.problem.k = in[3 * rank + 1].tensor();
      me.problem.v = in[3 * rank + 2].tensor();
      out[rank].size(batches, positions, s.rows[rank + 1] - s.rows[rank], heads);
      me.x[0] = out[rank].tensor();
    }
    launch(attention_blocks(), Shape::kThreads, Shape::kSharedBytes,
           [&](char* shared) { push_forward<Machine, Shape>(s, shared); });
    launch(2, 64, 16, [&](char*) { collect<Machine, 64>(s); });
    bool good = counters_clear();
    for (int rank = 0; rank < ranks; ++rank) good = same(out[rank], 0, s.rows[rank]) && good;
    return good;
  }
  bool pull() {
    reference();
    std::vector<Array> in = split_inputs(false), out(ranks);
    for (int rank = 0; rank < ranks; ++rank) {
      SwitchRank& me = s.here[rank];
      const int own = s.positions[rank + 1] - s.positions[rank];
      problem(me, own);
      for (int which = 0; which < 3; ++which) me.x[which] = in[3 * rank + which].tensor();
      out[rank].size(batches, own, rows, heads);
      me.problem.out = out[rank].tensor();
    }
    launch(2, 64, 16, [&](char*) { stage<Machine, 64>(s); });
    launch(attention_blocks(), Shape::kThreads, Shape::kSharedBytes,
           [&](char* shared) { pull_forward<Machine, Shape>(s, shared); });
    bool good = counters_clear();
    for (int rank = 0; rank < ranks; ++rank) good = same(out[rank], s.positions[rank], 0) && good;
    return good;
  }
};

bool trial(unsigned seed) {
  World w(seed, 1'000'000'000);
  bool good = true;
  std::string failure;
  try {
    for (int operation = 0; operation < 4 && good; ++operation)
      good = w.below(2) == 0 ? w.push() : w.pull();
  } catch (const std::exception& error) {
    failure = error.what(), good = false;
  }
  std::printf("%s seed %u ranks %d B %d T %d rows %d heads %d/%d causal %d %s\n",
              good ? "ok  " : "FAIL", seed, w.ranks, w.batches, w.positions, w.rows, w.heads,
              w.kv_heads, w.causal, failure.c_str());
  return good;
}

// The last rank's blocks never run: whoever waits for it gives up, and everybody knows why.
bool killed(unsigned seed) {
  World w(seed, 2'000'000);
  if (w.ranks == 1 || w.s.positions[w.ranks] == w.s.positions[w.ranks - 1]) return true;
  w.reference();
  --w.s.ranks_here;
  std::vector<Array> in = w.split_inputs(true), out(w.ranks);
  for (int rank = 0; rank < w.ranks; ++rank) {
    w.problem(w.s.here[rank], w.s.positions[rank + 1] - w.s.positions[rank]);
    Problem& p = w.s.here[rank].problem;
    p.q = in[3 * rank].tensor(), p.k = in[3 * rank + 1].tensor(), p.v = in[3 * rank + 2].tensor();
    out[rank].size(w.batches, w.positions, w.s.rows[rank + 1] - w.s.rows[rank], w.heads);
    w.s.here[rank].x[0] = out[rank].tensor();
  }
  w.launch(w.attention_blocks(), Shape::kThreads, Shape::kSharedBytes,
           [&](char* shared) { push_forward<Machine, Shape>(w.s, shared); });
  w.launch(1, 64, 16, [&](char*) { collect<Machine, 64>(w.s); });
  bool good = true;
  for (int rank = 0; rank < w.ranks; ++rank) {
    perfkit::protocol::Endpoint<HostMemory> me(w.s.layout, static_cast<std::uint32_t>(rank),
                                               w.s.bases, 0);
    const perfkit::protocol::Abort why = me.aborted();
    good = good && why.reason == perfkit::protocol::Reason::data &&
           why.waited_for == static_cast<std::uint32_t>(w.ranks - 1);
  }
  std::printf("%s seed %u killed\n", good ? "ok  " : "FAIL", seed);
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const auto first = static_cast<unsigned>(std::atoi(argv[2]));
  const bool kill = std::string(argv[1]) == "killed";
  const int trials = kill ? 8 : std::atoi(argv[1]);
  bool good = true;
  for (int i = 0; i < trials; ++i) {
    const unsigned seed = first + static_cast<unsigned>(i);
    good = (kill ? killed(seed) : trial(seed)) && good;
    if (!good) break;
  }
  return good ? 0 : 1;
}
