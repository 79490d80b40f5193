// A switch of the sharded axis through a symmetric heap, block by block.
//
// A tensor [batch][position][head][row][column] is attended along its rows. In one placement the
// rows are sharded and every rank has all positions; in the other the positions are sharded and
// every rank has all rows. A unit is one position and one K/V head: attention treats units apart.
// What rank `owner` of rows and rank `worker` of positions have in common is cut into frames of
// units; block (owner, worker, frame) always lies in the owner's heap:
//
//   pull   the owner stores its rows there, the worker reads them when the flag is set
//   push   the worker stores results there, the owner collects them when the flag is set
//
// Blocks are [part][batch][unit][head of the unit][row][column], so a unit's rows are contiguous.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "cpu/attention.h"

namespace perfkit::exchange {

using attention::Tensor;

// `length` things over `parts`: the first length % parts get one more.
struct Balanced {
  std::int64_t length = 0, parts = 1;
  std::int64_t begin(std::int64_t part) const {
    return part * (length / parts) + (part < length % parts ? part : length % parts);
  }
  std::int64_t size(std::int64_t part) const { return begin(part + 1) - begin(part); }
};

struct Geometry {
  std::int64_t batch = 1, rows = 0, positions = 0, kv_heads = 1;  // of the whole tensor
  std::uint32_t ranks = 1, rank = 0, frames = 1;

  Balanced row_shards() const { return {rows, ranks}; }
  Balanced position_shards() const { return {positions, ranks}; }
  Balanced units(std::uint32_t worker) const {
    return {position_shards().size(worker) * kv_heads, frames};
  }
};

// One tensor that is exchanged, as the user has it. Strides are in elements; the batch is
// dimension 2 and the position dimension 3 of `tensor.batch`.
struct Part {
  Tensor tensor;
  int heads = 1;  // per K/V head
  int dim = 0;
  int element() const { return tensor.kind == attention::Kind::bf16 ? 2 : 4; }
  std::int64_t row_bytes() const { return std::int64_t{dim} * element(); }
  std::int64_t unit_bytes() const { return heads * row_bytes(); }  // of one row of a unit
  char* at(std::int64_t batch, std::int64_t position, std::int64_t head, std::int64_t row) const {
    return tensor.data + (batch * tensor.batch[2] + position * tensor.batch[3] +
                          head * tensor.head + row * tensor.row) * element();
  }
};

class Blocks {
 public:
  Blocks(const Geometry& geometry, const std::vector<Part>& parts)
      : g_(geometry), parts_(parts) {
    for (const Part& part : parts) bytes_ += part.unit_bytes();
  }
  const std::vector<Part>& parts() const { return parts_; }

  // Bytes of a block, and where it begins in the owner's slot.
  std::int64_t bytes(std::uint32_t owner, std::uint32_t worker, std::uint32_t frame) const {
    return per_unit(owner) * g_.units(worker).size(frame);
  }
  std::int64_t offset(std::uint32_t owner, std::uint32_t worker, std::uint32_t frame) const {
    return per_unit(owner) * (g_.position_shards().begin(worker) * g_.kv_heads +
                              g_.units(worker).begin(frame));
  }
  // Bytes of a slot, the same on every rank.
  std::int64_t slot() const { return per_unit(0) * g_.positions * g_.kv_heads; }

  // Where the rows of one head of a unit begin in a block. `unit` counts from the frame's first.
  std::int64_t place(std::uint32_t owner, std::uint32_t worker, std::uint32_t frame,
                     std::size_t part, std::int64_t batch, std::int64_t unit, int head) const {
    const std::int64_t count = g_.units(worker).size(frame), rows = g_.row_shards().size(owner);
    std::int64_t before = 0;
    for (std::size_t other = 0; other < part; ++other) before += parts_[other].unit_bytes();
    const Part& here = parts_[part];
    return offset(owner, worker, frame) + before * g_.batch * count * rows +
           ((batch * count + unit) * here.heads + head) * rows * here.row_bytes();
  }

  // Copies between the owner's tensors, sharded by rows, and a block in its own slot.
  void store(char* slot, std::uint32_t worker, std::uint32_t frame) const {
    copy<true>(slot, worker, frame);
  }
  void collect(char* slot, std::uint32_t worker, std::uint32_t frame) const {
    copy<false>(slot, worker, frame);
  }

 private:
  std::int64_t per_unit(std::uint32_t owner) const {
    return g_.batch * g_.row_shards().size(owner) * bytes_;
  }
  template <bool to_slot>
  void copy(char* slot, std::uint32_t worker, std::uint32_t frame) const;

  Geometry g_;
  std::vector<Part> parts_;
  std::int64_t bytes_ = 0;
};

// One row of columns; `step` is the stride of the strided side in elements.
inline void copy_row(char* to, std::int64_t to_step, const char* from, std::int64_t from_step,
                     int dim, int element) {
  if (to_step == 1 && from_step == 1) {
    std::memcpy(to, from, static_cast<std::size_t>(dim) * element);
    return;
  }
  for (int column = 0; column < dim; ++column)
    std::memcpy(to + column * to_step * element, from + column * from_step * element, element);
}

template <bool to_slot>
void Blocks::copy(char* slot, std::uint32_t worker, std::uint32_t frame) const {
  const Balanced units = g_.units(worker);
  const std::int64_t rows = g_.row_shards().size(g_.rank), count = units.size(frame);
  const std::int64_t first = g_.position_shards().begin(worker) * g_.kv_heads + units.begin(frame);
  for (std::size_t index = 0; index < parts_.size(); ++index) {
    const Part& part = parts_[index];
    const std::int64_t row_bytes = part.row_bytes();
    for (std::int64_t batch = 0; batch < g_.batch; ++batch) {
      char* block = slot + place(g_.rank, worker, frame, index, batch, 0, 0);
      // Heads and positions lie next to each other in the tensor, rows do in the block.
      for (std::int64_t row = 0; row < rows; ++row)
        for (std::int64_t unit = 0; unit < count; ++unit) {
          const std::int64_t kv_head = (first + unit) % g_.kv_heads;
          for (int head = 0; head < part.heads; ++head) {
            char* user = part.at(batch, (first + unit) / g_.kv_heads,
                                 kv_head * part.heads + head, row);
            char* here = block + ((unit * part.heads + head) * rows + row) * row_bytes;
            if (to_slot)
              copy_row(here, 1, user, part.tensor.column, part.dim, part.element());
            else
              copy_row(user, part.tensor.column, here, 1, part.dim, part.element());
          }
        }
    }
  }
}

}  // namespace perfkit::exchange
