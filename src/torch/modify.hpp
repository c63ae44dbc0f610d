#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "cairn/comm.hpp"
#include "cairn/config.hpp"
#include "cairn/modifiers.hpp"
#include "torch/model.hpp"

namespace cairn::detail {

/// Modifiers, checked on all ranks and not yet carried out.
struct Modification {
  /// A and B of adapters that will be the model's: what else a load may fill.
  std::vector<ModelTensor> adapters;
  std::map<std::string, double> scales;  ///< alpha / rank of all adapters, by path
  std::vector<ModifierWork> work;
};

/// What of a list of modifiers is wanted.
enum class ModifierChoice : std::uint8_t {
  all,
  structure,  ///< what decides which tensors there are and which are trained; twice is as once
};

/// Checks all that can be checked. Changes nothing. Collective; the same `modifiers` on all ranks.
/// Errors: not_found (a path that no rank has), usage, unsupported, and what registered modifiers
/// throw.
Modification prepare_modifiers(const Comm& comm, torch::nn::Module& model,
                               const std::vector<Modifier>& modifiers, ModifierChoice choice,
                               const LoraAdapters& adapters);

/// Local.
std::vector<ModifierReport> carry_out(const Modification& modification);

/// What the ranks' modifiers did together, on all ranks. Collective.
std::vector<ModifierReport> unite_reports(const Comm& comm,
                                          const std::vector<ModifierReport>& mine);

}  // namespace cairn::detail
