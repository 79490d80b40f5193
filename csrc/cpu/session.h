// One fused operation on one rank: store what others need, compute units as their rows arrive,
// collect what others computed. Producing never waits for consumers of the same operation.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "cpu/arrivals.h"
#include "cpu/exchange.h"
#include "cpu/switch_attention.h"
#include "cpu/workers.h"

namespace perfkit::exchange {

class Session {
 public:
  Session(const Geometry& geometry, std::vector<Part> in, std::vector<Part> out,
          Endpoint& endpoint, const Settings& settings)
      : g_(geometry), in_(geometry, in), out_(geometry, out), endpoint_(endpoint),
        settings_(settings), link_(endpoint, settings.link), left_(geometry.frames) {}

  // compute(worker, batch, unit, frame): `unit` counts this rank's units.
  template <class Compute>
  Status run(const Compute& compute) {
    const bool pulls = !in_.parts().empty(), pushes = !out_.parts().empty();
    if (pulls) in_epoch_ = endpoint_.begin();
    if (pushes) out_epoch_ = endpoint_.begin();
    if (pulls)
      if (const Status status = wait_free(in_epoch_); status != Status::ok) return status;
    Arrivals units(endpoint_, in_epoch_, 0, settings_.in_order);
    Arrivals results(endpoint_, out_epoch_, 1, settings_.in_order);
    for (std::uint32_t frame = 0; frame < g_.frames; ++frame) {
      const std::int64_t items = g_.batch * g_.units(g_.rank).size(frame);
      left_[frame] = items;
      units.add({0, g_.ranks, frame, items}, pulls);
    }
    if (pushes)
      for (std::uint32_t step = 1; step < g_.ranks; ++step)
        for (std::uint32_t frame = 0; frame < g_.frames; ++frame) {
          const std::uint32_t peer = (g_.rank + step) % g_.ranks;
          results.add({peer, peer + 1, frame, 1}, true);
        }
    std::atomic<std::uint32_t> stored{pulls ? 0 : (g_.ranks - 1) * g_.frames};
    std::atomic<int> worst{static_cast<int>(Status::ok)};
    together(settings_.threads, [&](int worker) {
      const Status status = work(worker, stored, units, results, compute);
      int none = static_cast<int>(Status::ok);
      if (status != Status::ok) {
        units.fail(status);
        results.fail(status);
        worst.compare_exchange_strong(none, static_cast<int>(status));
      }
    });
    link_.drain();
    const auto status = static_cast<Status>(worst.load());
    if (status != Status::ok) return status;
    // Once for everything, so that an acknowledgement says that no slot is read any more.
    for (std::uint32_t peer = 0; peer < g_.ranks; ++peer) {
      if (pulls) endpoint_.acknowledge(peer, in_epoch_);
      if (pushes) endpoint_.acknowledge(peer, out_epoch_);
    }
    return Status::ok;
  }

  // All rows of one head of a unit of pulled part `index`, one after the other.
  void gather(std::size_t index, std::int64_t batch, std::int64_t unit, std::uint32_t frame,
              int head, char* to) const {
    const Part& part = in_.parts()[index];
    for (std::uint32_t owner = 0; owner < g_.ranks; ++owner) {
      const std::int64_t rows = g_.row_shards().size(owner);
      if (owner == g_.rank) {
        for (std::int64_t row = 0; row < rows; ++row, to += part.row_bytes())
          copy_row(to, 1, mine(part, batch, unit, head, row), part.tensor.column, part.dim,
                   part.element());
        continue;
      }
      const char* from = endpoint_.data(owner, in_epoch_) +
                         in_.place(owner, g_.rank, frame, index, batch, within(unit, frame), head);
      std::memcpy(to, from, static_cast<std::size_t>(rows * part.row_bytes()));
      to += rows * part.row_bytes();
    }
  }

  // Rows [first, last) of one head of a unit of pushed part `index` to their owners.
  void scatter(std::size_t index, std::int64_t batch, std::int64_t unit, std::uint32_t frame,
               int head, std::int64_t first, std::int64_t last, const char* from) const {
    const Part& part = out_.parts()[index];
    const Balanced shards = g_.row_shards();
    for (std::uint32_t owner = 0; owner < g_.ranks; ++owner) {
      const std::int64_t begin = std::max(first, shards.begin(owner));
      const std::int64_t end = std::min(last, shards.begin(owner + 1));
      if (begin >= end) continue;
      const char* rows = from + (begin - first) * part.row_bytes();
      const std::int64_t local = begin - shards.begin(owner);
      if (owner == g_.rank) {
        for (std::int64_t row = 0; row < end - begin; ++row, rows += part.row_bytes())
          copy_row(mine(part, batch, unit, head, local + row), part.tensor.column, rows, 1,
                   part.dim, part.element());
        continue;
      }
      char* to = endpoint_.data(owner, out_epoch_) +
                 out_.place(owner, g_.rank, frame, index, batch, within(unit, frame), head);
      std::memcpy(to + local * part.row_bytes(), rows,
                  static_cast<std::size_t>((end - begin) * part.row_bytes()));
    }
  }

 private:
  std::int64_t within(std::int64_t unit, std::uint32_t frame) const {
    return unit - g_.units(g_.rank).begin(frame);
  }
  // This rank's own rows never touch the heap.
  char* mine(const Part& part, std::int64_t batch, std::int64_t unit, int head,
             std::int64_t row) const {
    const std::int64_t kv_head = unit % g_.kv_heads;
    const std::int64_t position = g_.position_shards().begin(g_.rank) + unit / g_.kv_heads;
    return part.at(batch, position, kv_head * part.heads + head, row);
  }

  Status wait_free(std::uint64_t epoch) const {
    // Of everybody: slots are laid out anew each time, so any rank may still read what this one
    // is about to overwrite.
    for (std::uint32_t peer = 0; peer < g_.ranks; ++peer)
      if (peer != g_.rank)
        if (const Status status = endpoint_.wait_free(peer, epoch); status != Status::ok)
          return status;
    return Status::ok;
  }

  template <class Compute>
  Status work(int worker, std::atomic<std::uint32_t>& stored, Arrivals& units, Arrivals& results,
              const Compute& compute) {
    for (std::uint32_t task = stored++; task < (g_.ranks - 1) * g_.frames; task = stored++) {
      // Everybody begins with another peer, and with the frames that are wanted first.
      const std::uint32_t peer = (g_.rank + 1 + task % (g_.ranks - 1)) % g_.ranks;
      const std::uint32_t frame = task / (g_.ranks - 1);
      in_.store(endpoint_.data(g_.rank, in_epoch_), peer, frame);
      link_.publish(peer, in_epoch_, frame, 0, in_.bytes(g_.rank, peer, frame));
    }
    const bool pushes = !out_.parts().empty();
    if (pushes)
      if (const Status status = wait_free(out_epoch_); status != Status::ok) return status;
    Work found;
    std::int64_t item = 0;
    Status status = Status::ok;
    if (pushes && worker == 0) publish_empty();
    while (units.next(found, item, status)) {
      const Balanced mine = g_.units(g_.rank);
      const std::int64_t count = mine.size(found.frame);
      compute(worker, item / count, mine.begin(found.frame) + item % count, found.frame);
      if (pushes && left_[found.frame].fetch_sub(1, std::memory_order_acq_rel) == 1)
        publish(found.frame);
    }
    if (status != Status::ok) return status;
    while (pushes && results.next(found, item, status))
      out_.collect(endpoint_.data(g_.rank, out_epoch_), found.first, found.frame);
    return status;
  }

  void publish(std::uint32_t frame) {
    for (std::uint32_t step = 1; step < g_.ranks; ++step) {
      const std::uint32_t peer = (g_.rank + step) % g_.ranks;
      link_.publish(peer, out_epoch_, frame, 1, out_.bytes(peer, g_.rank, frame));
    }
  }
  void publish_empty() {
    for (std::uint32_t frame = 0; frame < g_.frames; ++frame)
      if (g_.batch * g_.units(g_.rank).size(frame) == 0) publish(frame);
  }

  Geometry g_;
  Blocks in_, out_;
  Endpoint& endpoint_;
  Settings settings_;
  Link link_;
  std::vector<std::atomic<std::int64_t>> left_;
  std::uint64_t in_epoch_ = 0, out_epoch_ = 0;
};

}  // namespace perfkit::exchange
