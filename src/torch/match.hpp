#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/quantized/Quantizer.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "cairn/checkpoint.hpp"
#include "pipeline/load_plan.hpp"
#include "torch/modify.hpp"
#include "torch/optimizer.hpp"
#include "torch/restore.hpp"
#include "torch/tensor_memory.hpp"

namespace cairn::detail {

/// How a checkpoint fits what this rank was given, with memory for all that is to be loaded.
struct Match {
  std::vector<MutableTensorView> targets;
  std::vector<TensorMemory> memories;  ///< behind the targets
  std::unordered_map<const at::TensorImpl*, at::QuantizerPtr> quantizers;
  std::vector<std::uint64_t> used;  ///< Use, by position in the manifest
  LoadNotes notes;
  std::vector<std::string> model_names;   ///< dotted, of all the model's tensors
  std::vector<at::Tensor> model_tensors;  ///< those of them that are loaded, but no adapters
  /// Without a given optimizer only the checkpoint's parameters, none of them matched.
  PreparedOptimizer optimizer;
  bool with_optimizer = false;
};

/// Local; changes nothing that was given. What the strategy does not restore counts as not given.
/// Errors: mismatch (what plan_load refuses, other quantisation, another optimizer), corrupt,
/// usage, unsupported.
Match match_trainer(const Manifest& manifest, const CheckpointNames& names,
                    const TrainerState& trainer, const RestoreSettings& settings,
                    const Modification& modification);

}  // namespace cairn::detail
