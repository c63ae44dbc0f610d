#pragma once

#include "pipeline/migrations/follow.hpp"

namespace cairn::detail::migrations {

// PyTorch knows an optimizer's parameters by numbers; the documents `optimizers` and `tree` of a
// file of PyTorch's, or of a container that was made from one, tell which are which. Nothing is
// done where there is no such tree. All Local.

/// To be called before these parameters' values change places, or their number changes: the
/// optimizers' state must go with them. Errors: unsupported (which state belongs to which of them
/// is not known, so that it would stay as it is).
void require_state_follows(Working& working, const NameChanges& changes);

/// Gives the optimizers' parameters their new names. Errors: unsupported (they become more or
/// fewer).
void follow_numbers(Working& working, const NameChanges& changes);

}  // namespace cairn::detail::migrations
