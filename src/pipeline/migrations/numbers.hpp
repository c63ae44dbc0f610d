#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "pipeline/migrations/follow.hpp"

namespace cairn::detail::migrations {

// PyTorch knows an optimizer's parameters by keys, which are numbers as a rule: `params` of its
// groups lists them, and `state` has of each what the optimizer keeps for it. The documents
// `optimizers` and `tree` of a file of PyTorch's, or of a container that was made from one, tell
// which parameters these are. Nothing is done where there is no such tree. All Local.

/// To be called before these parameters' values change places, or their number changes: the
/// optimizers' state must go with them. Errors: unsupported (which state belongs to which of them
/// is not known, so that it would stay as it is).
void require_state_follows(Working& working, const NameChanges& changes);

/// What the keys of an optimizer's parameters became. A value.
struct StateKeys {
  Json path;                 ///< of the optimizer
  std::vector<Json> params;  ///< by group: its keys
  std::vector<Json> names;   ///< by group: the names of its parameters
  /// By the text of an old key: those of what its parameter became, in the order of NameChanges.
  std::unordered_map<std::string, std::vector<Json>> now;
  /// By the text of a new key: how many old ones became it.
  std::unordered_map<std::string, std::size_t> wholes;
};

/// Gives the optimizers' parameters their new names and, where they become more or fewer, new
/// numbers, in the order of their groups: in the document `optimizers`, and in what "objects",
/// "opaque", "arrays" and "containers" tell of groups and of state beside tensors, which goes where
/// its parameter goes. Returns the optimizers of which any name changed. Errors: mismatch (the
/// parts of a whole differ in such state, or are in different groups).
std::vector<StateKeys> follow_numbers(Working& working, const NameChanges& changes);

/// The path, in a file of PyTorch's, of what the tensor at `path` became: its part of number
/// `part`. Nothing where it is in the state of none of these optimizers' parameters.
std::optional<Json> path_now(const std::vector<StateKeys>& optimizers, const Json& path,
                             std::size_t part);

}  // namespace cairn::detail::migrations
