#pragma once

#include "cairn/comm.hpp"
#include "options.hpp"
#include "text.hpp"

namespace train_lm {

/// Trains as `options` say: resumes, steps, saves and, on rank 0, prints. Returns the program's
/// exit code: 0, or cairn::kExitRequeue where it stopped early. Collective on `comm`. Errors: those
/// of cairn::CheckpointCallback.
int train(const cairn::Comm& comm, const Options& options, const Text& text);

}  // namespace train_lm
