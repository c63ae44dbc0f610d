#pragma once

#include "cairn/comm.hpp"
#include "options.hpp"
#include "text.hpp"

namespace train_lm {

/// Trains as `options` say: resumes, steps, saves and, on rank 0, prints. Collective on `comm`.
/// Errors: those of cairn::CheckpointManager.
void train(const cairn::Comm& comm, const Options& options, const Text& text);

}  // namespace train_lm
