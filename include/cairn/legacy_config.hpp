#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cairn/export.hpp"

namespace cairn {

/// One key of the legacy configuration and what became of it.
struct MovedKey {
  std::string key;  ///< dotted path
  int line = 0;
  std::string to;  ///< where it is now, dotted; empty: left out
  std::string why;
};

struct MigrationNote {
  std::string code;  ///< a word for programs: "freeze-any-depth"
  std::string message;
  std::vector<std::string> about;  ///< the keys that it is about, dotted
  int line = 0;
};

/// What a migration comes to.
struct ConfigMigration {
  /// E0, E1, E2, E3: the schema that the text was read by. ES: cairn's own.
  std::string era;
  /// The migrated text; with errors, the text that was given.
  std::string text;
  bool changed = false;
  std::vector<MovedKey> moved;
  std::vector<MigrationNote> warnings;
  std::vector<MigrationNote> errors;
  /// All of it as JSON, and in `migrated` what the new blocks say.
  std::string report;

  bool ok() const { return errors.empty(); }
};

/// Rewrites training configurations of the legacy system for cairn (docs/migration.md): moves the
/// keys that are about checkpoints into cairn's blocks and leaves every other byte as it is. What
/// is migrated already stays as it is.
class CAIRN_EXPORT LegacyConfigMigrator {
 public:
  /// `from_version`: the release that the file was written for, "0.7", or its era, "E1"; empty: it
  /// is deduced. Errors: usage (neither). Local.
  explicit LegacyConfigMigrator(std::string from_version = {});

  /// What is wrong with the configuration is told by the result's `errors`; what is no
  /// configuration throws. `origin` names the text in errors. Errors: usage (no YAML), unsafe (too
  /// large). Local.
  ConfigMigration migrate(const std::string& yaml,
                          const std::string& origin = "configuration") const;
  /// Errors: also not_found, io. Local.
  ConfigMigration migrate_file(const std::filesystem::path& path) const;

 private:
  std::string from_version_;
};

}  // namespace cairn
