// The attention kernels at 16 lanes, lowered by the compiler to the base instruction set, against
// those at 4: what AVX-512 runs differs from this in the instructions alone.
//
//   lanes <trials> <seed>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "cpu/attention.h"

namespace perfkit::attention {
const Kernels& avx2_kernels() { return portable_kernels(); }
}  // namespace perfkit::attention

namespace {

using namespace perfkit::attention;

struct Array {
  std::vector<float> data;
  Tensor tensor;
  Array(std::int64_t heads, std::int64_t rows, int columns, std::mt19937& random)
      : data(heads * rows * columns) {
    std::normal_distribution<float> normal;
    for (float& x : data) x = normal(random);
    tensor.data = reinterpret_cast<char*>(data.data());
    tensor.kind = Kind::fp32;
    tensor.head = rows * columns;
    tensor.row = columns;
    tensor.column = 1;
  }
};

bool near(const Array& a, const Array& b) {
  double difference = 0, norm = 1e-6;
  for (std::size_t i = 0; i < a.data.size(); ++i) {
    difference += std::pow(double{a.data[i]} - b.data[i], 2);
    norm += std::pow(double{b.data[i]}, 2);
  }
  return std::sqrt(difference / norm) < 1e-5;
}

struct Results {
  Array out, lse, d_q, d_k, d_v;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int trials = std::atoi(argv[1]);
  for (int trial = 0; trial < trials; ++trial) {
    std::mt19937 random(static_cast<unsigned>(std::atoi(argv[2]) + trial));
    const std::int64_t kv = 1 + random() % 2, heads = kv * (1 + random() % 2);
    const std::int64_t queries = 1 + random() % 150;
    const bool causal = random() % 2 == 0;
    const std::int64_t keys = causal ? queries : 1 + random() % 150;
    const int dim = 1 + random() % 130, value_dim = 1 + random() % 130;
    Array q(heads, queries, dim, random), k(kv, keys, dim, random);
    Array v(kv, keys, value_dim, random), grad(heads, queries, value_dim, random);
    std::vector<Results> found;
    for (const Kernels* kernels : {&portable_kernels(), &avx512_kernels()}) {
      found.push_back({{heads, queries, value_dim, random}, {heads, queries, 1, random},
                       {heads, queries, dim, random}, {kv, keys, dim, random},
                       {kv, keys, value_dim, random}});
      Results& r = found.back();
      Problem p;
      p.heads = heads;
      p.kv_heads = kv;
      p.queries = queries;
      p.keys = keys;
      p.dim = dim;
      p.value_dim = value_dim;
      p.scale = 1.0f / std::sqrt(static_cast<float>(dim));
      p.causal = causal;
      p.q = q.tensor;
      p.k = k.tensor;
      p.v = v.tensor;
      p.out = r.out.tensor;
      p.lse = r.lse.tensor;
      p.d_out = grad.tensor;
      p.d_q = r.d_q.tensor;
      p.d_k = r.d_k.tensor;
      p.d_v = r.d_v.tensor;
      forward(p, *kernels);
      backward(p, *kernels);
    }
    const Results &a = found[0], &b = found[1];
    if (!near(a.out, b.out) || !near(a.lse, b.lse) || !near(a.d_q, b.d_q) ||
        !near(a.d_k, b.d_k) || !near(a.d_v, b.d_v)) {
      std::printf("trial %d differs\n", trial);
      return 1;
    }
  }
  std::printf("%d trials\n", trials);
  return 0;
}
