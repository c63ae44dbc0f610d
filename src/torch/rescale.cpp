#include "torch/rescale.hpp"

#include <fmt/format.h>
#include <torch/optim/optimizer.h>

#include <cmath>

namespace cairn::detail {

std::string rescale_rates(torch::optim::Optimizer& optimizer, RescaleRate how, int saved_ranks,
                          int ranks) {
  if (how == RescaleRate::off) {
    return fmt::format("as it was with {} ranks; loading.rescale_lr changes it", saved_ranks);
  }
  double factor = static_cast<double>(ranks) / saved_ranks;
  if (how == RescaleRate::sqrt) factor = std::sqrt(factor);
  for (auto& group : optimizer.param_groups()) {
    group.options().set_lr(group.options().get_lr() * factor);
  }
  return fmt::format("multiplied by {:.6g}: {} ranks saved it, and there are {}", factor,
                     saved_ranks, ranks);
}

}  // namespace cairn::detail
