#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cairn/dtype.hpp"
#include "torch/documents.hpp"
#include "torch/model.hpp"

namespace torch::optim {
class Optimizer;
}

namespace cairn::detail {

/// One tensor of an optimizer's state, `optimizer/<parameter>/<slot>`.
struct OptimizerSlot {
  std::string name;
  at::Tensor tensor;
  /// `step`: a 0-d tensor made for the occasion, the same on all ranks; i64, or what the checkpoint
  /// has.
  bool counter = false;
};

/// Type, options and parameter names of all groups. Local.
/// Errors: unsupported (a type of optimizer that cairn does not know); usage (a parameter without
/// name).
Json optimizer_document(const torch::optim::Optimizer& optimizer, const ParameterNames& names);

/// The state that exists, in the order of the parameters. Local. Errors as above.
std::vector<OptimizerSlot> optimizer_slots(const torch::optim::Optimizer& optimizer,
                                           const ParameterNames& names);

/// Whether a document says which parameters are in which group, with what options.
bool has_groups(const Json& document);
/// The names of the parameters of a document, group by group. Throws Json::exception.
std::vector<std::string> saved_parameters(const Json& document);

/// State made ready beside an optimizer, which stays as it is until `apply`.
struct PreparedOptimizer {
  std::vector<OptimizerSlot> slots;  ///< to be filled
  /// The saved parameters, and whether this rank's optimizer has them.
  std::vector<std::string> parameters;
  std::vector<std::uint64_t> matched;
  std::function<void()> apply;  ///< takes options and filled slots into the optimizer
};

/// The dtype of the checkpoint's tensor of that name, if it has one.
using SlotFinder = std::function<std::optional<DType>(const std::string& name)>;

/// Local. A `document` without type, as files of PyTorch give it, is judged by its options; one
/// without groups leaves the options as they are.
/// Throws Json::exception where the document is not as it must be.
/// Errors: unsupported, usage; mismatch (another type, other groups, state without its main
/// tensors).
PreparedOptimizer prepare_optimizer(torch::optim::Optimizer& optimizer, const ParameterNames& names,
                                    const Json& document, const SlotFinder& find);

}  // namespace cairn::detail
