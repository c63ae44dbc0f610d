#pragma once

#include <map>
#include <string>
#include <vector>

#include "cairn/manifest.hpp"
#include "pipeline/migrations/migration.hpp"

namespace cairn::detail::migrations {

/// The document in which a checkpoint says what was done to it.
inline constexpr const char* kHistory = "migrations";

/// A migration that a checkpoint has behind it.
struct Applied {
  std::string name;
  std::string version;
  std::string signature;
  std::string when;  ///< UTC, ISO 8601
  /// What leads back: `tensors`, steps for undo_step; `documents`, of each that changed what it was
  /// (a JSON patch, a text, or null where there was none); `none`, where there is no way back, why.
  /// Null: the checkpoint was saved by a program that knew the migration already.
  Json undo;
};

/// What a checkpoint says, in the order in which it happened; none where it says nothing. Local.
/// Errors: corrupt.
std::vector<Applied> history_of(const Manifest& manifest);
std::string history_text(const std::vector<Applied>& history);

/// Which migrations a checkpoint lacks.
struct Missing {
  std::vector<std::size_t> positions;  ///< of the migrations, in their order
  std::vector<std::string> warnings;
};
/// `to`: a version or a migration's name, up to which; empty: all. Local. Errors: unsupported (the
/// checkpoint has migrations that are not known, or is from before a final one), usage (`to` is
/// behind the checkpoint, or nothing).
Missing missing_in(const std::vector<Applied>& history, const std::vector<Migration>& migrations,
                   const std::string& to, const std::string& file);
/// How many of the history are to be taken back, from its end; without `to`, one. Local. Errors:
/// usage (there are none).
std::size_t count_back(const std::vector<Applied>& history, const std::string& to,
                       const std::string& file);

using Documents = std::map<std::string, std::string>;
/// What makes the documents `after` those of `before` again. Local.
Json way_back(const Documents& before, const Documents& after);

}  // namespace cairn::detail::migrations
