#pragma once

#include <string>

#include "cairn/config.hpp"

namespace torch::optim {
class Optimizer;
}

namespace cairn::detail {

/// Multiplies the learning rates of all groups as `how` says, and says it in words. Local.
std::string rescale_rates(torch::optim::Optimizer& optimizer, RescaleRate how, int saved_ranks,
                          int ranks);

}  // namespace cairn::detail
