// Attention on the CPU: softmax(scale * Q K^T + mask + bias) V, and its gradients.
//
// Tiled with an online softmax (Dao et al., FlashAttention, arXiv 2205.14135, algorithm 1; the
// backward recomputes P from the saved log-sum-exp, algorithm 4). Plain pointers and strides in
// elements; nothing is copied but one tile at a time.
#pragma once

#include <cstdint>

namespace perfkit::attention {

enum class Kind : std::int32_t { none = 0, fp32 = 1, bf16 = 2, boolean = 3 };

constexpr int kBatchDims = 4;
constexpr int kMaxHeadDim = 256;
constexpr int kRows = 64;     // queries of a tile
constexpr int kColumns = 96;  // keys of a tile at most

struct Tensor {
  char* data = nullptr;
  Kind kind = Kind::none;
  std::int64_t batch[kBatchDims] = {};
  std::int64_t head = 0, row = 0, column = 0;  // a stride of 0 broadcasts
};

struct Problem {
  std::int64_t batch[kBatchDims] = {1, 1, 1, 1};
  std::int64_t heads = 1, kv_heads = 1, queries = 0, keys = 0;
  int dim = 0, value_dim = 0;
  float scale = 1.0f;
  bool causal = false;  // query i sees the keys 0..i
  int threads = 1;
  Tensor q, k, v, mask, bias;  // mask: boolean (true: attend) or added, like the bias
  Tensor out, lse;             // lse: natural logarithm, fp32, -inf for a row without keys
  Tensor d_out, d_q, d_k, d_v;
  Tensor d_bias;  // fp32, zeroed by the caller, 0-strides where the bias broadcasts

  std::int64_t batches() const { return batch[0] * batch[1] * batch[2] * batch[3]; }
};

// One instruction set's kernels; all work on tiles given by index and know no threads.
struct Kernels {
  const char* name;
  // Bytes of scratch, aligned to 64, that one worker needs.
  std::int64_t (*forward_scratch)(const Problem&);
  std::int64_t (*backward_scratch)(const Problem&);
  // Queries [first_row, first_row + kRows) of one head.
  void (*forward)(const Problem&, std::int64_t batch, std::int64_t head, std::int64_t first_row,
                  char* scratch);
  // Adds the gradients of rows [first_row, last_row) of every head that shares a K/V head to
  // `d_k` and `d_v`, [keys][padded dim] fp32, and writes these rows of d_q.
  void (*backward)(const Problem&, std::int64_t batch, std::int64_t kv_head,
                   std::int64_t first_row, std::int64_t last_row, float* d_k, float* d_v,
                   char* scratch);
};

// Rows of the accumulators above are padded to this many elements.
constexpr int padded(int dim) { return (dim + 15) / 16 * 16; }

const Kernels& portable_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
#endif
// The named kernels, or the best this processor runs for ""; null when it cannot run them.
const Kernels* find_kernels(const char* name);

// Accumulated rows, padded, to where `to` begins, in its element type.
void write_sums(const Tensor& to, const float* sums, std::int64_t rows, int dim);

void forward(const Problem& problem, const Kernels& kernels);
void backward(const Problem& problem, const Kernels& kernels);

}  // namespace perfkit::attention
