#pragma once

#include <cstdint>
#include <vector>

#include "cairn/comm.hpp"

namespace cairn::bench {

/// What the decision about saves costs a step of a trainer in which none is due.
struct StepCost {
  double step_ms = 0;  ///< that a step computes
  std::uint64_t steps = 0;
  // On average, on the slowest rank:
  double us = 0;      ///< by the clock
  double cpu_us = 0;  ///< by the time that the rank computed
};

/// Steps of several lengths. Collective.
std::vector<StepCost> measure_schedule(const Comm& comm);

}  // namespace cairn::bench
