#pragma once

#include "cairn/checkpoint.hpp"
#include "cairn/torch.hpp"

namespace cairn::detail {

/// What the user gave to a load.
struct TrainerState {
  torch::nn::Module& model;
  torch::optim::Optimizer* optimizer = nullptr;
  const SchedulerRef* scheduler = nullptr;
};

/// Fills all that is given from the checkpoint, or, on Error, nothing; only an io Error while the
/// bytes move, after all checks, leaves tensors partly filled. Collective.
/// Errors: mismatch, corrupt, unsupported, usage, io, timeout.
CheckpointContext restore(const Comm& comm, const Manifest& manifest, const TrainerState& trainer,
                          const ManagerOptions& options, const LoadOptions& load);

}  // namespace cairn::detail
