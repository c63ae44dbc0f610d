#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/pickle/graph.hpp"

namespace cairn::detail::torch {

struct ModuleTensor {
  std::string name;  ///< "encoder.0.weight"
  pickle::Ref tensor = pickle::kNoRef;
};

/// Whether an object is like a torch.nn.Module: with parameters, buffers and modules in it. Local.
bool is_module(const pickle::Graph& graph, pickle::Ref ref);
/// The parameters and buffers of a module and those in it, as named_parameters() and
/// named_buffers() tell them: each object once, by its first name. Adds to `work` what was looked
/// at, for a limit. Local. Errors: corrupt, unsafe.
std::vector<ModuleTensor> module_tensors(const pickle::Graph& graph, pickle::Ref ref,
                                         std::uint64_t& work);

}  // namespace cairn::detail::torch
