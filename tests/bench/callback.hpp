#pragma once

#include <cstdint>
#include <vector>

#include "cairn/comm.hpp"

namespace cairn::bench {

/// What the decision about saves costs a step of a trainer in which none is due.
struct StepCost {
  double step_ms = 0;  ///< that a step computes
  std::uint64_t steps = 0;
  double us = 0;  ///< on average, on the slowest rank
};

/// Steps of several lengths. Collective.
std::vector<StepCost> measure_schedule(const Comm& comm);

}  // namespace cairn::bench
