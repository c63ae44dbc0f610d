#pragma once

#include <cstdint>

#include "cairn/modifiers.hpp"
#include "pipeline/path_patterns.hpp"

namespace cairn::detail {

/// Whether every parameter under `patterns` belongs to a module that can reset itself as a whole.
/// Local. Errors: unsupported, usage.
void check_reset(torch::nn::Module& model, const PathPatterns& patterns);

/// Fresh values for the modules that `patterns` take, drawn from `seed` and each module's path;
/// LibTorch's CPU random state is left as it was. Local.
ModifierReport reset(torch::nn::Module& model, const PathPatterns& patterns, std::uint64_t seed);

}  // namespace cairn::detail
