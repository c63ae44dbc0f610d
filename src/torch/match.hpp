#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/quantized/Quantizer.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "cairn/checkpoint.hpp"
#include "torch/optimizer.hpp"
#include "torch/restore.hpp"
#include "torch/tensor_memory.hpp"

namespace cairn::detail {

/// How a checkpoint fits what this rank was given, with memory for all that is to be loaded.
struct Match {
  static constexpr std::uint64_t kUnused = 0;
  /// Another name of a tied tensor: the value is loaded under the first name.
  static constexpr std::uint64_t kTied = 1;
  static constexpr std::uint64_t kLoaded = 2;

  std::vector<MutableTensorView> targets;
  std::vector<TensorMemory> memories;  ///< behind the targets
  std::unordered_map<const at::TensorImpl*, at::QuantizerPtr> quantizers;
  std::vector<std::uint64_t> used;  ///< by position in the manifest
  /// Without a given optimizer only the checkpoint's parameters, none of them matched.
  PreparedOptimizer optimizer;
  bool with_optimizer = false;
  std::vector<std::string> warnings;
};

/// Local; changes nothing that was given.
/// Errors: mismatch (tensors that the checkpoint lacks, other quantisation, another optimizer),
/// corrupt, usage, unsupported.
Match match_trainer(const Manifest& manifest, const TrainerState& trainer,
                    const ManagerOptions& options);

/// "'a', 'b', 'c' and 7 more"
std::string list_some(const std::vector<std::string>& names);

}  // namespace cairn::detail
