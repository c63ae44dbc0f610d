#pragma once

#include <chrono>
#include <string>

#include "cairn/checkpoint.hpp"
#include "cairn/torch.hpp"
#include "pipeline/trace.hpp"
#include "trainer/states.hpp"

namespace cairn::detail {

/// What the user gave to a load.
struct TrainerState {
  torch::nn::Module& model;
  torch::optim::Optimizer* optimizer = nullptr;
  const SchedulerRef* scheduler = nullptr;
};

/// How it is to be loaded; the same on all ranks.
struct RestoreSettings {
  const ManagerOptions& options;
  const Config& config;
  LoadingConfig loading;
  LoadOptions load;
  LoraAdapters adapters;
  const States& states;
  Trace& trace;
  /// Becomes true when the load begins to change what was given, and false again where that is
  /// taken back.
  bool& changed;
  /// When the time of the load is over, and whose it is: until all tensors are moved.
  std::chrono::steady_clock::time_point until = {};
  std::string limit = {};
};

/// Fills what the strategy restores of what is given, then carries out the modifiers; or, on Error,
/// does nothing: only an Error while the bytes move, after all checks (io, timeout, or corrupt
/// where another program changes the file), leaves tensors partly filled, and one of modules that
/// reset themselves, or no memory for adapters, leaves them filled. With keep_copy, and where
/// modifiers of the program's own are configured, not even that. Collective. Errors: mismatch,
/// not_found (paths that the model does not have), corrupt, unsupported, usage, io, timeout, and
/// what registered modifiers throw.
CheckpointContext restore(const Comm& comm, const Manifest& manifest, const TrainerState& trainer,
                          const RestoreSettings& settings);

}  // namespace cairn::detail
