#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cairn/checkpoint.hpp"
#include "cairn/context.hpp"
#include "cairn/export.hpp"
#include "cairn/state.hpp"
#include "pipeline/checkpoint_names.hpp"

namespace cairn::detail {

// How the user's states (cairn/state.hpp) lie in a checkpoint: the document "state" with a text for
// each shared one, a blob "state.<name>" for each of a rank, and tensors "<name>/<tensor>".

/// The states of a trainer by name; the same names on all ranks.
using States = std::map<std::string, Stateful*>;

/// That of CheckpointCallback itself.
inline constexpr const char* kTrainerState = "trainer";

/// Errors: usage, when `name` can't be a state's.
CAIRN_EXPORT void check_state_name(const std::string& name);

/// Of the names.
CAIRN_EXPORT std::uint64_t hash_of(const States& states);

/// Adds what is to be saved. Local. Errors: usage.
CAIRN_EXPORT void collect_states(const States& states, StateView& to);

/// What a checkpoint has for the states, before any of them changes.
class CAIRN_EXPORT StatesLoad {
 public:
  /// Local. Errors: corrupt, mismatch (a tensor of a state is not in the checkpoint).
  StatesLoad(const Manifest& manifest, const CheckpointNames& names, const States& states);

  /// The tensors to fill, with the positions of theirs in the manifest.
  const std::vector<MutableTensorView>& targets() const { return targets_; }
  const std::vector<std::size_t>& positions() const { return positions_; }
  /// Of states that the checkpoint does not have, and of those that it has and nobody takes.
  const std::vector<std::string>& warnings() const { return warnings_; }

  /// Reads what is each rank's own. Collective. Errors: corrupt, io, mismatch.
  void read_blobs(const Comm& comm);
  /// Gives each state its text. Local. Errors: what states throw; then the caller rolls back.
  void apply();
  /// Keeps the bytes of the tensors to fill, for roll_back(). Local.
  void keep_tensors();
  /// Gives back what they had. Local; never throws.
  void roll_back() noexcept;
  /// Tells the states, and says of each what became of it. Local.
  std::vector<StateReport> finish(int saved_ranks, int ranks);

 private:
  struct Item {
    std::string name;
    Stateful* object = nullptr;
    bool found = false;
    std::optional<std::string> text;  ///< of the checkpoint
    std::function<void()> undo;       ///< once load() was called
  };
  const Manifest& manifest_;
  std::vector<Item> items_;
  std::vector<MutableTensorView> targets_;
  std::vector<std::vector<std::byte>> kept_;  // of the targets, or empty
  std::vector<std::size_t> positions_;
  std::vector<std::string> untaken_;  // states of the checkpoint
  std::vector<std::string> warnings_;
};

}  // namespace cairn::detail
