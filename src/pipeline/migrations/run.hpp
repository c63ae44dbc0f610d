#pragma once

#include <filesystem>
#include <string>

#include "cairn/comm.hpp"
#include "cairn/export.hpp"
#include "checkpoint/convert.hpp"
#include "pipeline/migrations/migration.hpp"

namespace cairn::detail::migrations {

struct MigrateOptions {
  std::filesystem::path steps;  ///< the directory of the migrations; not for the way back
  std::string to;               ///< a version or a name; empty: all, or the last one back
  bool rollback = false;
  bool dry_run = false;    ///< nothing is written
  ConvertOptions convert;  ///< how the new file is written
};

struct MigrateResult {
  Json migrations = Json::array();  ///< what was done, or would be; empty: nothing is to do
  std::vector<std::string> warnings;
  ConvertResult written;
};

/// Carries out the migrations that the checkpoint `source` lacks, or takes some back, and writes
/// the result to `target`: of a container a container, state of single ranks included; otherwise
/// what ConvertOptions::to says. Digests of the source are checked first, and what was written is
/// read back; the target appears when it is whole. Writes nothing where nothing is to do. Rank 0
/// alone reads the steps. Collective; arguments are the same on all ranks. Errors: those of
/// migrate_forward, migrate_back and convert_checkpoint.
MigrateResult migrate_checkpoint(const Comm& comm, const Manifest& source,
                                 const std::filesystem::path& target,
                                 const MigrateOptions& options);

/// A checkpoint as a load is to see it, behind all migrations of `steps`: rank 0 works them out and
/// tells all ranks. No byte is moved; tensors whose digests are lost on the way are checked here,
/// where `verify` is set. `manifest` has a container's names (as_container). Collective. Errors:
/// those of migrate_forward; unsupported, where values would have to be converted.
CAIRN_EXPORT Manifest migrated_for_load(const Comm& comm, Manifest manifest,
                                        const std::filesystem::path& steps, bool verify);

/// The document "migrations" of what is saved by a program that has all of `steps` behind it.
/// Local. Errors: those of read_migrations.
CAIRN_EXPORT std::string history_of_new(const std::filesystem::path& steps);

/// The document "migrations" of what a program without steps saves after it has loaded `loaded`:
/// the same migrations, but no way back, which was that of the loaded file alone. Empty where that
/// has none behind it. Local. Errors: corrupt, unsupported.
CAIRN_EXPORT std::string history_of_next(const Manifest& loaded);

}  // namespace cairn::detail::migrations
