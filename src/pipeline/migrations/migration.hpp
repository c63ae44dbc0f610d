#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cairn::detail::migrations {

using Json = nlohmann::ordered_json;

/// One file of steps (docs/migrations.md). A value.
struct Migration {
  std::string name;         ///< the file's, without its ending: "0012_rename_encoder"
  std::string version;      ///< the release that it leads to
  std::string description;  ///< empty: none
  bool is_final = false;    ///< files from before can't be migrated beyond it
  /// Objects with a `type`; checked, so that every key is there that the type needs.
  Json steps = Json::array();
  std::vector<std::string> places;  ///< of each step, for errors: "file:line: 'steps[0]' (rename)"
  std::string signature;  ///< SHA-256 of what it does, whatever its comments and description say
};

/// The text of one file. Local. Errors: usage, unsafe.
Migration parse_migration(const std::string& yaml, const std::string& name,
                          const std::string& origin);
/// All files NUMBER_WORDS.yaml of a directory, by their numbers. Local. Errors: not_found, usage,
/// unsafe, io.
std::vector<Migration> read_migrations(const std::filesystem::path& directory);

/// Below 0, 0, above 0: as versions count, "0.10" behind "0.9". Local.
int compare_versions(const std::string& a, const std::string& b);

}  // namespace cairn::detail::migrations
