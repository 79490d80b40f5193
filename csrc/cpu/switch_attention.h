// Attention fused with the switches of the sharded axis before and after it.
//
// pull: q, k, v arrive sharded along their rows, and every unit of work (one position, one K/V
// head) is computed once its rows have come from all ranks. push: rows of the result are stored
// straight into the heap of the rank that owns them. Backward exchanges the two: the gradient of
// a pushed result is pulled, those of pulled inputs are pushed.
#pragma once

#include <cstdint>

#include "cpu/arrivals.h"
#include "cpu/attention.h"
#include "cpu/exchange.h"

namespace perfkit::exchange {

struct Settings {
  int threads = 1;
  bool in_order = false;  // take frames in their order, not in that of arrival
  double link = 0;        // bytes a second of an emulated link; 0: publish at once
};

// Tensors are [batch][position][head][row][column], sharded as Part says where they are
// exchanged; lse and the saved ones always have all rows of this rank's positions.
struct Segment {
  Geometry geometry;
  bool pull = false, push = false;
  attention::Problem problem;  // heads, dims, scale, causal; its tensors; sizes are not used
  attention::Tensor saved_q, saved_k, saved_v;  // forward, pull: to be filled, or none
  attention::Tensor saved_out;                  // forward, push: to be filled, or none
};


// Bytes that every rank's slots must have.
std::int64_t slot_bytes(const Segment& segment);

// Flags [frame][2] are used: subtile 0 pulls, 1 pushes. Two operations of the heap begin when
// both happen. In backward `problem` has q, k, v, out and lse with all rows.
Status forward(const Segment& segment, const attention::Kernels& kernels, Endpoint& endpoint,
               const Settings& settings);
Status backward(const Segment& segment, const attention::Kernels& kernels, Endpoint& endpoint,
                const Settings& settings);

}  // namespace perfkit::exchange
