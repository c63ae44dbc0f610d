#pragma once

#include <cstdint>
#include <vector>

namespace cairn::bench {

/// What one rank's part of planning took.
struct Cost {
  double seconds = 0;
  std::uint64_t heap_bytes = 0;  ///< at the peak
};

/// Planning a save of many ranks, each part alone in this process.
struct Simulation {
  int ranks = 0;
  std::uint64_t tensors = 0;
  std::uint64_t pieces = 0;  ///< that the rank looked at holds
  std::uint64_t distinct = 0;
  std::uint64_t extents = 0;  ///< of the plan
  Cost member;                ///< any rank: keys of its pieces, its report, finding its extents
  Cost keeper;                ///< any rank: answering who holds what
  Cost root;                  ///< rank 0: the plan
};

/// A model of `tensors` tensors, weights and two optimizer states of each, on `ranks` ranks: half
/// of the weights are split by columns over 8 ranks, all are replicated over the others, and the
/// optimizer states of a weight lie with one of the ranks that hold it. Local. Errors: usage when
/// there are fewer than 8 ranks or they are no multiple of 8.
Simulation simulate_plan(int ranks, std::uint64_t tensors);

}  // namespace cairn::bench
