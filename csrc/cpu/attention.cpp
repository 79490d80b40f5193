// Work sharing of the attention kernels, and the choice among instruction sets.
#include "cpu/attention.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "cpu/workers.h"

namespace perfkit::attention {
namespace {

// A thread takes some 20 us to start: not worth it below about this many multiply-adds.
int useful_threads(const Problem& p, double products) {
  const double work = products * static_cast<double>(p.batches()) *
                      static_cast<double>(p.heads) * static_cast<double>(p.queries) *
                      static_cast<double>(p.keys) * p.dim;
  return static_cast<int>(std::min<double>(p.threads, 1.0 + work / 2e6));
}

std::int64_t first_element(const Problem& p, const Tensor& t, std::int64_t batch,
                           std::int64_t head) {
  std::int64_t at = head * t.head;
  for (int dim = kBatchDims - 1; dim >= 0; --dim) {
    at += batch % p.batch[dim] * t.batch[dim];
    batch /= p.batch[dim];
  }
  return at;
}

// Sums the parts of an accumulator, always in the same order, into a gradient.
void write_gradient(const Problem& p, Tensor to, std::int64_t batch, std::int64_t head, int dim,
                    const std::vector<float*>& parts) {
  for (std::size_t part = 1; part < parts.size(); ++part)
    for (std::int64_t at = 0; at < p.keys * padded(dim); ++at) parts[0][at] += parts[part][at];
  to.data += first_element(p, to, batch, head) * (to.kind == Kind::fp32 ? 4 : 2);
  write_sums(to, parts[0], p.keys, dim);
}

}  // namespace

void write_sums(const Tensor& to, const float* sums, std::int64_t rows, int dim) {
  const int stride = padded(dim);
  for (std::int64_t row = 0; row < rows; ++row)
    for (int column = 0; column < dim; ++column) {
      const float sum = sums[row * stride + column];
      const std::int64_t at = row * to.row + column * to.column;
      if (to.kind == Kind::fp32) {
        reinterpret_cast<float*>(to.data)[at] = sum;
        continue;
      }
      std::uint32_t bits;
      std::memcpy(&bits, &sum, 4);
      bits = sum != sum ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
      reinterpret_cast<std::uint16_t*>(to.data)[at] = static_cast<std::uint16_t>(bits);
    }
}

const Kernels* find_kernels(const char* name) {
  const bool any = *name == '\0';
#if defined(__x86_64__)
  // Known since the program was loaded: asking the processor takes far longer on virtual machines.
  if ((any || std::strcmp(name, "avx512") == 0) && __builtin_cpu_supports("avx512f"))
    return &avx512_kernels();
  if ((any || std::strcmp(name, "avx2") == 0) && __builtin_cpu_supports("avx2") &&
      __builtin_cpu_supports("fma"))
    return &avx2_kernels();
#endif
  if (any || std::strcmp(name, "portable") == 0) return &portable_kernels();
  return nullptr;
}

void forward(const Problem& p, const Kernels& kernels) {
  const std::int64_t tiles = (p.queries + kRows - 1) / kRows;
  const std::int64_t count = p.batches() * p.heads * tiles;
  if (count == 0) return;
  const int threads = useful_threads(p, 2);
  const std::int64_t bytes = (kernels.forward_scratch(p) + 63) / 64 * 64;
  const Memory scratch = aligned(bytes * threads);
  share(threads, count, [&](std::int64_t index, int worker) {
    const std::int64_t tile = index % tiles, head = index / tiles;
    kernels.forward(p, head / p.heads, head % p.heads, tile * kRows,
                    scratch.get() + bytes * worker);
  });
}

void backward(const Problem& p, const Kernels& kernels) {
  const std::int64_t pairs = p.batches() * p.kv_heads;
  if (pairs == 0) return;
  const int threads = useful_threads(p, 5);
  // Pairs that add to the same elements of the bias gradient belong to one thread, in order.
  std::vector<std::vector<std::int64_t>> groups;
  const bool biased = p.d_bias.kind != Kind::none;
  std::map<std::int64_t, std::size_t> known;
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const std::int64_t head = pair % p.kv_heads * (p.heads / p.kv_heads);
    const std::int64_t key = biased ? first_element(p, p.d_bias, pair / p.kv_heads, head) : pair;
    const auto found = known.try_emplace(key, groups.size());
    if (found.second) groups.emplace_back();
    groups[found.first->second].push_back(pair);
  }
  // Too few groups for the threads: cut the queries too, each cut with sums of its own.
  const std::int64_t tiles = std::max<std::int64_t>(1, (p.queries + kRows - 1) / kRows);
  const auto group_count = static_cast<std::int64_t>(groups.size());
  std::int64_t cuts = 1;
  if (group_count < threads && !(biased && p.d_bias.row == 0))
    cuts = std::min<std::int64_t>(tiles, (2 * threads + group_count - 1) / group_count);
  const std::int64_t sums = p.keys * (padded(p.dim) + padded(p.value_dim));
  const std::int64_t scratch_bytes = (kernels.backward_scratch(p) + 63) / 64 * 64;
  const std::int64_t sum_bytes = (sums * 4 + 63) / 64 * 64;
  const Memory scratch = aligned(scratch_bytes * threads);
  const Memory totals = aligned(sum_bytes * (cuts > 1 ? pairs * cuts : threads));
  const auto d_v_of = [&](float* d_k) { return d_k + p.keys * padded(p.dim); };
  const auto finish = [&](std::int64_t pair, const std::vector<float*>& d_k) {
    std::vector<float*> d_v;
    for (float* part : d_k) d_v.push_back(part + p.keys * padded(p.dim));
    write_gradient(p, p.d_k, pair / p.kv_heads, pair % p.kv_heads, p.dim, d_k);
    write_gradient(p, p.d_v, pair / p.kv_heads, pair % p.kv_heads, p.value_dim, d_v);
  };
  const auto total = [&](std::int64_t index) {
    return reinterpret_cast<float*>(totals.get() + sum_bytes * index);
  };
  share(threads, group_count * cuts, [&](std::int64_t index, int worker) {
    const std::int64_t cut = index % cuts;
    const std::int64_t first = tiles * cut / cuts * kRows;
    const std::int64_t last = std::min(p.queries, tiles * (cut + 1) / cuts * kRows);
    for (std::int64_t pair : groups[index / cuts]) {
      float* d_k = total(cuts > 1 ? pair * cuts + cut : worker);
      std::fill(d_k, d_k + sums, 0.0f);
      kernels.backward(p, pair / p.kv_heads, pair % p.kv_heads, first, last, d_k, d_v_of(d_k),
                       scratch.get() + scratch_bytes * worker);
      if (cuts == 1) finish(pair, {d_k});
    }
  });
  if (cuts == 1) return;
  share(threads, pairs, [&](std::int64_t pair, int) {
    std::vector<float*> parts;
    for (std::int64_t cut = 0; cut < cuts; ++cut) parts.push_back(total(pair * cuts + cut));
    finish(pair, parts);
  });
}

}  // namespace perfkit::attention
