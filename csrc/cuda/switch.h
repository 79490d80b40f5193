// Attention fused with the switch of the sharded axis, on the protocol of protocol/endpoint.h.
//
// Tensors are [batch, position, row, head, column]. Attention goes along the rows of each
// position; a rank holds either its positions with all rows, or its rows of all positions.
//
//   push (K2): q, k, v have this rank's positions. Each tile of the result is stored straight into
//     the slot of the rank that owns its rows; `collect` copies a slot into a tensor.
//   pull (K3): q, k, v have this rank's rows. `stage` puts them into the own slot; attention over
//     the own positions reads every rank's rows where they lie, its own first.
//
// A flag is set per position. Counters in device memory (all 0, and 0 again after each launch)
// find the last block of a position and of a rank: a launch may be replayed by a graph. A launch
// computes one rank, or several virtual ranks that share one GPU: rank = block / blocks a rank.
#pragma once

#include <cstdint>

#include "cuda/forward.h"
#include "cuda/problem.h"
#include "protocol/endpoint.h"

namespace perfkit::cuda {

constexpr int kMaxSwitchRanks = 8;

// What one rank of a launch brings. Lengths are local where the rank has a part.
struct SwitchRank {
  std::uint32_t rank = 0;
  Problem problem;                   // batch[2] = batches, batch[3] = own positions; all rows
  Tensor x[3];                       // pull: own rows of q, k, v; collect: x[0] is the result
  std::uint32_t* counters = nullptr;  // [positions + 1]; the last one counts blocks
};

struct Switch {
  protocol::Layout layout;  // frames: all positions; subtiles: 1
  char* bases[kMaxSwitchRanks] = {};
  std::int64_t timeout_ns = 0;
  std::int32_t positions[kMaxSwitchRanks + 1] = {};  // rank r owns [positions[r], positions[r+1])
  std::int32_t rows[kMaxSwitchRanks + 1] = {};       // and rows [rows[r], rows[r+1])
  std::int32_t batches = 1, heads = 1, kv_heads = 1, dim = 0;
  std::int32_t ranks_here = 1;  // in this launch
  std::int32_t blocks = 0;      // of every rank in this launch
  SwitchRank here[kMaxSwitchRanks];

  PERFKIT_BODY int ranks() const { return static_cast<int>(layout.ranks); }
  PERFKIT_BODY int all_positions() const { return positions[ranks()]; }
  PERFKIT_BODY int all_rows() const { return rows[ranks()]; }
  static PERFKIT_BODY int owner(const std::int32_t* begins, int ranks, int index) {
    int rank = 0;
    for (int next = 1; next < ranks; ++next) rank += index >= begins[next];
    return rank;
  }
  // Element offset of a row in a slot that holds rows of one rank, [batch, position, row, head].
  PERFKIT_BODY std::int64_t at(int rank, int batch, int position, int row, int head,
                               int of_heads) const {
    const std::int64_t lines =
        (std::int64_t{batch} * all_positions() + position) * (rows[rank + 1] - rows[rank]) +
        (row - rows[rank]);
    return (lines * of_heads + head) * dim;
  }
  // Pull: where q (0), k (1) and v (2) begin in a rank's slot, in elements.
  PERFKIT_BODY std::int64_t part(int rank, int which) const {
    const std::int64_t lines =
        std::int64_t{batches} * all_positions() * (rows[rank + 1] - rows[rank]) * dim;
    return lines * (which == 0 ? 0 : which == 1 ? heads : heads + kv_heads);
  }
};

// One row tile a warp: addresses of rows of several ranks take the registers of the other.
template <class Element, int kDim>
using SwitchShape = ForwardShape<Element, kDim, false, 1>;

// Rows of one head of one position that lie in the slots of the ranks that own them.
struct SlotRows {
  const Switch& s;
  std::uint64_t slot;
  int which, batch, position, head, of_heads;
  static constexpr bool vectors = true;
  static constexpr std::int64_t column = 2;

  PERFKIT_BODY char* at(int row) const {
    const int rank = Switch::owner(s.rows, s.ranks(), row);
    const std::int64_t element =
        s.part(rank, which) + s.at(rank, batch, position, row, head, of_heads);
    return s.bases[rank] + slot + element * 2;
  }
};

template <class M>
struct Turn {
  using Endpoint = protocol::Endpoint<typename M::Memory>;

  const Switch& s;
  const SwitchRank& mine;
  Endpoint endpoint;
  int block;  // of this rank

  PERFKIT_BODY explicit Turn(const Switch& s)
      : s(s),
        mine(s.here[M::block() / s.blocks]),
        endpoint(s.layout, mine.rank, s.bases, s.timeout_ns),
        block(M::block() % s.blocks) {}

  // One thread waits for all; true when the block may go on.
  template <class Wait>
  PERFKIT_BODY bool wait(const Wait& wait) const {
    bool failed = false;
    if (M::thread() == 0) failed = wait() != protocol::Status::ok;
    return !M::any(failed);
  }
  PERFKIT_BODY bool wait_free(std::uint64_t epoch) {
    return wait([&] {
      for (std::uint32_t rank = 0; rank < s.layout.ranks; ++rank) {
        const protocol::Status status = endpoint.wait_free(rank, epoch);
        if (status != protocol::Status::ok) return status;
      }
      return protocol::Status::ok;
    });
  }
  // After a barrier, by one thread: whether this was the last of `total` blocks. What the others
  // wrote before they came here is visible then.
  PERFKIT_BODY bool last(int counter, int total) const {
    if (M::add(mine.counters + counter, 1) + 1 != static_cast<std::uint32_t>(total)) return false;
    M::clear(mine.counters + counter);
    return true;
  }
  PERFKIT_BODY int block_counter() const { return s.all_positions(); }
  PERFKIT_BODY int own_positions() const {
    return s.positions[mine.rank + 1] - s.positions[mine.rank];
  }
};

// K2: attention over the own positions; rows of the result go to their owners.
template <class M, class Shape>
PERFKIT_BODY void push_forward(const Switch& s, typename M::Shared shared) {
  Turn<M> turn(s);
  const Problem& p = turn.mine.problem;
  const int tiles = (p.queries + Shape::kRows - 1) / Shape::kRows;
  const int per_position = tiles * p.heads, positions = turn.own_positions();
  const int active = per_position * positions * s.batches;
  const std::uint64_t epoch = turn.endpoint.epoch() + 1;
  if (turn.block < active) {
    if (!turn.wait_free(epoch)) return;
    const auto block = QueryBlock::of<Shape::kRows>(p, turn.block);
    const int own = block.batch % positions, batch = block.batch / positions;
    const int position = s.positions[turn.mine.rank] + own, kv_head = block.kv_head(p);
    KeysInOrder<Shape::kColumns> keys(p, block.first + Shape::kRows - 1);
    const SlotRows out{s, s.layout.slot(epoch), 0, batch, position, block.head, s.heads};
    forward_block<M, Shape>(p, block, StridedRows(p, p.q, block.batch, block.head),
                            StridedRows(p, p.k, block.batch, kv_head),
                            StridedRows(p, p.v, block.batch, kv_head), keys, out, shared);
    M::sync();
    if (M::thread() == 0 && turn.last(position, per_position * s.batches))
      for (std::uint32_t rank = 0; rank < s.layout.ranks; ++rank)
        turn.endpoint.publish(rank, epoch, static_cast<std::uint32_t>(position), 0);
  }
  // A rank without positions still takes part in the operation.
  if (M::thread() == 0 && turn.last(turn.block_counter(), s.blocks)) turn.endpoint.begin();
}

// Lines of 16 bytes between a slot and a tensor [batch, position, row, head, column] of own rows.
template <class M, int kThreads, bool kToSlot>
PERFKIT_BODY void copy_position(const Switch& s, const SwitchRank& mine, char* slot,
                                const Tensor& x, int which, int of_heads, int batch,
                                int position) {
  const int first = s.rows[mine.rank], count = s.rows[mine.rank + 1] - first;
  const int chunks = s.dim / kChunk;
  const std::int64_t pieces = std::int64_t{count} * of_heads * chunks;
  for (std::int64_t piece = M::thread(); piece < pieces; piece += kThreads) {
    const int chunk = static_cast<int>(piece % chunks);
    const int head = static_cast<int>(piece / chunks % of_heads);
    const int row = static_cast<int>(piece / chunks / of_heads);
    const int rank = static_cast<int>(mine.rank);
    char* in_slot = slot + (s.part(rank, which) +
                            s.at(rank, batch, position, first + row, head, of_heads) +
                            chunk * kChunk) * 2;
    char* in_tensor = x.data + (batch * x.batch[2] + position * x.batch[3] + row * x.row +
                                head * x.head + chunk * kChunk) * 2;
    M::copy_global16(kToSlot ? in_slot : in_tensor, kToSlot ? in_tensor : in_slot);
  }
}

// The result of a push into a tensor, each position as soon as it is there; then the slot is free.
template <class M, int kThreads>
PERFKIT_BODY void collect(const Switch& s) {
  Turn<M> turn(s);
  const std::uint64_t epoch = turn.endpoint.epoch();
  char* slot = s.bases[turn.mine.rank] + s.layout.slot(epoch);
  for (int item = turn.block; item < s.batches * s.all_positions(); item += s.blocks) {
    const int position = item % s.all_positions();
    const int source = Switch::owner(s.positions, s.ranks(), position);
    const bool there = turn.wait([&] {
      return turn.endpoint.wait_data(static_cast<std::uint32_t>(source), epoch,
                                     static_cast<std::uint32_t>(position), 0);
    });
    if (!there) return;
    copy_position<M, kThreads, false>(s, turn.mine, slot, turn.mine.x[0], 0, s.heads,
                                      item / s.all_positions(), position);
  }
  M::sync();
  if (M::thread() == 0 && turn.last(turn.block_counter(), s.blocks))
    for (std::uint32_t rank = 0; rank < s.layout.ranks; ++rank)
      turn.endpoint.acknowledge(rank, epoch);
}

// K3, first half: own rows of q, k, v into the own slot; the owner of a position hears of it.
template <class M, int kThreads>
PERFKIT_BODY void stage(const Switch& s) {
  Turn<M> turn(s);
  const std::uint64_t epoch = turn.endpoint.epoch() + 1;
  char* slot = s.bases[turn.mine.rank] + s.layout.slot(epoch);
  if (!turn.wait_free(epoch)) return;
  for (int item = turn.block; item < s.batches * s.all_positions(); item += s.blocks) {
    const int position = item % s.all_positions(), batch = item / s.all_positions();
    for (int which = 0; which < 3; ++which)
      copy_position<M, kThreads, true>(s, turn.mine, slot, turn.mine.x[which], which,
                                       which == 0 ? s.heads : s.kv_heads, batch, position);
    M::sync();
    const int owner = Switch::owner(s.positions, s.ranks(), position);
    if (M::thread() == 0 && turn.last(position, s.batches))
      turn.endpoint.publish(static_cast<std::uint32_t>(owner), epoch,
                            static_cast<std::uint32_t>(position), 0);
  }
  if (M::thread() == 0 && turn.last(turn.block_counter(), s.blocks)) turn.endpoint.begin();
}

// The keys of a position, rank after rank, the own ones first: a fixed order, so the result is
// the same in every run. A tile never goes over the rows of one rank.
template <int kColumns, class Turn_>
struct KeysByRank {
  Turn_& turn;
  std::uint64_t epoch;
  int position;

  PERFKIT_BODY int rank_of(int turn_number) const {
    return (static_cast<int>(turn.mine.rank) + turn_number) % turn.s.ranks();
  }
  PERFKIT_BODY int tiles_of(int rank) const {
    return (turn.s.rows[rank + 1] - turn.s.rows[rank] + kColumns - 1) / kColumns;
  }
  PERFKIT_BODY int count() const {
    int tiles = 0;
    for (int rank = 0; rank < turn.s.ranks(); ++rank) tiles += tiles_of(rank);
    return tiles;
  }
  // The rank whose turn it is; `tile` becomes the number of its tile.
  PERFKIT_BODY int find(int& tile) const {
    int number = 0;
    while (tile >= tiles_of(rank_of(number))) tile -= tiles_of(rank_of(number++));
    return rank_of(number);
  }
  PERFKIT_BODY KeyTile at(int tile) const {
    const int rank = find(tile);
    return {turn.s.rows[rank] + tile * kColumns, turn.s.rows[rank + 1]};
  }
  PERFKIT_BODY bool wait(int rank) const {
    return turn.wait([&] {
      return turn.endpoint.wait_data(static_cast<std::uint32_t>(rank), epoch,
                                     static_cast<std::uint32_t>(position), 0);
    });
  }
  template <class M>
  PERFKIT_BODY bool arrive(int tile) const {
    const int rank = find(tile);
    return tile != 0 || wait(rank);
  }
};

// K3, second half: attention over the own positions; the ranks' slots are free after that.
template <class M, class Shape>
PERFKIT_BODY void pull_forward(const Switch& s, typename M::Shared shared) {
  Turn<M> turn(s);
  const Problem& p = turn.mine.problem;
  const int tiles = (p.queries + Shape::kRows - 1) / Shape::kRows;
  const int positions = turn.own_positions();
  const std::uint64_t epoch = turn.endpoint.epoch(), slot = s.layout.slot(epoch);
  if (turn.block < tiles * p.heads * positions * s.batches) {
    const auto block = QueryBlock::of<Shape::kRows>(p, turn.block);
    const int batch = block.batch / positions, kv_head = block.kv_head(p);
    const int position = s.positions[turn.mine.rank] + block.batch % positions;
    KeysByRank<Shape::kColumns, Turn<M>> keys{turn, epoch, position};
    const int end = block.first + Shape::kRows;
    for (int rank = 0; rank < s.ranks(); ++rank)  // whose queries the block has
      if (s.rows[rank] < end && s.rows[rank + 1] > block.first && !keys.wait(rank)) return;
    const SlotRows q{s, slot, 0, batch, position, block.head, s.heads};
    const SlotRows k{s, slot, 1, batch, position, kv_head, s.kv_heads};
    const SlotRows v{s, slot, 2, batch, position, kv_head, s.kv_heads};
    if (!forward_block<M, Shape>(p, block, q, k, v, keys,
                                 StridedRows(p, p.out, block.batch, block.head), shared))
      return;
  }
  M::sync();
  if (M::thread() == 0 && turn.last(turn.block_counter(), s.blocks))
    for (std::uint32_t rank = 0; rank < s.layout.ranks; ++rank)
      turn.endpoint.acknowledge(rank, epoch);
}

}  // namespace perfkit::cuda
