#pragma once

#include <map>
#include <string>
#include <vector>

#include "pipeline/migrations/history.hpp"
#include "pipeline/migrations/working.hpp"

namespace cairn::detail::migrations {

/// A checkpoint behind its migrations, without a byte moved.
struct Migrated {
  /// With a container's names. The tensors of a container that changed have a path: the dataset's.
  Manifest manifest;
  std::map<std::string, DType> casts;  ///< by name: what these tensors are to become
  /// Tensors of the checkpoint whose digests say nothing of what they became: whoever takes the
  /// bytes must check them there.
  std::vector<std::size_t> lost_digests;
  Json report = Json::array();  ///< of each migration: name, version, steps (type, changed, ...)
  std::vector<std::string> warnings;
  bool is_changed() const { return !report.empty(); }
};

/// Carries out what the checkpoint lacks, up to `to`. `manifest` has a container's names; `when` is
/// noted in the history. Local. Errors: those of missing_in and of apply_step, with the step's file
/// and line; unsupported (another program rewrote the file), mismatch.
Migrated migrate_forward(const Manifest& manifest, const std::vector<Migration>& migrations,
                         const std::string& to, const Bytes& bytes, const std::string& when);
/// Takes back the last one, or all beyond `to`. Local. Errors: usage, corrupt; unsupported (there
/// is no way back; the error names the step and why).
Migrated migrate_back(const Manifest& manifest, const std::string& to, const Bytes& bytes);

}  // namespace cairn::detail::migrations
