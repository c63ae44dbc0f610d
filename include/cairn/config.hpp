#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "cairn/checkpoint.hpp"
#include "cairn/export.hpp"

namespace cairn {

/// Where a checkpoint comes from. `path` is a checkpoint, or a run directory whose newest committed
/// checkpoint is meant.
struct LocalSource {
  std::filesystem::path path;
};

struct SaveConfig {
  std::filesystem::path dir;
  std::uint64_t every_n_steps = 0;  ///< 0: no periodic saves
  EngineKind engine = EngineKind::direct;
  Transfer transfer = Transfer::collective;
  bool durable = true;
  bool statistics = false;
  ReplicaCheck replica_check = ReplicaCheck::off;
  /// Set: periodic saves are made with save_checkpoint_async.
  std::optional<AsyncOptions> async;
};

/// Settings of a CheckpointManager. Unknown keys are errors that name file, line and the nearest
/// key.
struct CAIRN_EXPORT Config {
  std::optional<LocalSource> source;
  SaveConfig save;

  /// Errors: not_found, usage, unsupported. Local.
  static Config from_file(const std::filesystem::path& path);
  /// `origin` names the text in errors. Errors: usage, unsupported. Local.
  static Config from_string(const std::string& yaml, const std::string& origin = "configuration");
};

}  // namespace cairn
