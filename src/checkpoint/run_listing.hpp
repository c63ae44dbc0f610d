#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/marks.hpp"
#include "formats/hdf5/container.hpp"
#include "plan/retention.hpp"

namespace cairn::detail {

/// A committed checkpoint of a run's directory.
struct RunCheckpoint {
  std::filesystem::path path;
  CommitInfo commit;
  std::uint64_t bytes = 0;
  std::optional<std::uint64_t> epoch;
  CheckpointFacts facts;
  std::optional<Mark> bad;
  std::optional<Mark> verified;
};

/// Another file of a run's directory.
struct RunLeftover {
  std::filesystem::path path;
  std::uint64_t bytes = 0;
};

/// What is in a run's directory. Of strangers, the files that have no name of a step's checkpoint
/// and belong to none, nothing is said.
struct RunListing {
  std::vector<RunCheckpoint> checkpoints;  ///< by step
  /// With the name of a step's checkpoint, but damaged, rewritten or of a newer cairn.
  std::vector<RunLeftover> others;
  std::vector<RunLeftover> partial;             ///< of saves on their way, or of ones that died
  std::vector<std::filesystem::path> orphaned;  ///< marks whose checkpoint is gone; no pins
};

/// Judged by commit records and names alone. Local. Errors: io; not_found (no such directory);
/// those of references_of, which `may_call_hdf5` is for.
RunListing list_run(const std::filesystem::path& dir, bool may_call_hdf5);

/// What is the matter with one of RunListing::others. May call HDF5. Local.
std::string why_not_committed(const std::filesystem::path& path);

/// The facts of `listing`, in its order.
std::vector<CheckpointFacts> facts_of(const RunListing& listing);

}  // namespace cairn::detail
