#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cairn/comm.hpp"
#include "cairn/retention.hpp"
#include "program.hpp"

namespace cairn::tool {

/// The verbs of the tool. Each is Collective, shares its work between the ranks, prints its result
/// on rank 0 and returns the exit code (program.hpp), the same on all ranks. Errors: those of
/// open_checkpoint, verify_tensors and Config::from_file, agreed.

struct InspectOptions {
  std::string file;
  std::string hash;  ///< "" or "sha256"
  bool json = false;
};
int inspect(const Comm& comm, const InspectOptions& options);

struct DiffOptions {
  std::string a;
  std::string b;
  bool json = false;
};
int diff(const Comm& comm, const DiffOptions& options);

struct VerifyOptions {
  std::string file;
  bool mark = false;  ///< note the result beside the checkpoint
  bool json = false;
};
int verify(const Comm& comm, const VerifyOptions& options);

/// Which checkpoints of a run would stay, as the command line says it.
struct KeepOptions {
  RetentionPolicy policy;
  std::string mode = "min";  ///< of policy.keep_best
};

struct LsOptions {
  std::string run;
  KeepOptions keep;
  bool json = false;
};
int ls(const Comm& comm, const LsOptions& options);

struct PruneOptions {
  std::string run;
  KeepOptions keep;
  bool bad = false;      ///< also those that are marked as bad
  bool partial = false;  ///< also what saves left that died
  bool dry_run = false;
  bool json = false;
};
int prune(const Comm& comm, const PruneOptions& options);

struct BeginOptions {
  std::string run;
  std::uint64_t max_restarts = 5;
  bool json = false;
};
/// Counts a start of a run; kDifferent when it starts again and again without progress.
int begin(const Comm& comm, const BeginOptions& options);

struct PinOptions {
  std::string file;
  bool json = false;
};
/// Pins a checkpoint, or with `on` false unpins it.
int pin(const Comm& comm, const PinOptions& options, bool on);

struct ConvertOptions {
  std::string in;
  std::string out;
  std::string to;  ///< the format, or "": by the name of `out`
  std::string select;
  std::vector<std::string> rename;  ///< FROM=TO
  std::string dtype;
  bool weights_only = false;
  std::uint64_t memory_bytes = std::uint64_t{256} << 20;
  std::uint64_t shard_bytes = 0;
  bool force = false;
  bool json = false;
};
int convert(const Comm& comm, const ConvertOptions& options);

struct FlattenOptions {
  std::string in;
  std::string out;
  std::uint64_t memory_bytes = std::uint64_t{256} << 20;
  bool force = false;
  bool json = false;
};
int flatten(const Comm& comm, const FlattenOptions& options);

struct MigrateOptions {
  std::string file;
  std::string out;
  std::string steps;  ///< a directory
  std::string to;     ///< a version or a migration's name, or ""
  bool rollback = false;
  bool dry_run = false;
  std::uint64_t memory_bytes = std::uint64_t{256} << 20;
  bool force = false;
  bool json = false;
};
int migrate(const Comm& comm, const MigrateOptions& options);

enum class ConfigAction { check, show, schema };
struct ConfigOptions {
  ConfigAction action = ConfigAction::check;
  std::vector<std::string> files;  ///< of check; show has one
  bool json = false;
};
int config(const Comm& comm, const ConfigOptions& options);

struct MigrateConfigOptions {
  std::string file;
  std::string output;  ///< empty: standard output
  std::string from_version;
  bool check = false;  ///< tell whether there is anything to migrate, and write nothing
  bool force = false;
  bool json = false;
};
/// Errors: also those of LegacyConfigMigrator; usage (the output exists), io.
int migrate_config(const Comm& comm, const MigrateConfigOptions& options);

}  // namespace cairn::tool
