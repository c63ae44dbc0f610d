#pragma once

#include "cairn/modifiers.hpp"

namespace cairn::detail {

/// The first half of a registered modifier. Local. Errors: usage (no such type; no work returned),
/// and what it throws.
ModifierWork prepare_custom(const CustomModifier& settings, torch::nn::Module& model);

}  // namespace cairn::detail
