#pragma once

#include <map>
#include <string>

#include "cairn/manifest.hpp"
#include "formats/torch/tree.hpp"

namespace cairn::detail::dcp {

/// What the parts of a distributed checkpoint are, by the keys that training loops use, at the root
/// or, where only one key of the root has such below it, there: the documents `roles`, `optimizers`
/// and `training` (docs/formats.md), as far as there is something to say. `values`: what is beside
/// the tensors. Local.
std::map<std::string, std::string> facts_of(const torch::Tree& values, const TensorTable& tensors);

}  // namespace cairn::detail::dcp
