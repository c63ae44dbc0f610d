#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cairn/checkpoint.hpp"
#include "cairn/dtype.hpp"
#include "cairn/export.hpp"
#include "cairn/source.hpp"

namespace cairn {

/// What of a checkpoint goes into the trainer.
enum class LoadingType : std::uint8_t {
  warm_start,         ///< everything: weights, optimizer, scheduler, progress, random state
  cold_start,         ///< weights; epoch and step start at 0
  weights_only,       ///< weights; epoch and step are the checkpoint's
  transfer_learning,  ///< the weights that fit
};

/// Tensors of the checkpoint whose names begin with `from` get `to` in its place; with `regex`,
/// every match of the ECMAScript expression `from` is replaced by `to` ($1, ... are its groups).
struct RenameRule {
  std::string from;
  std::string to;
  bool regex = false;
  bool operator==(const RenameRule&) const = default;
};

struct LoadingConfig {
  LoadingType type = LoadingType::warm_start;
  /// Names that only one side has are errors. Always so for warm_start; off for transfer_learning
  /// unless given.
  bool strict = true;
  /// transfer_learning: a tensor of another shape keeps its fresh values instead of failing.
  bool skip_mismatched = true;
  /// transfer_learning: what was loaded takes no gradients.
  bool freeze_loaded = false;
  /// Applied in order, before names are compared.
  std::vector<RenameRule> rename = {};
  /// Convert tensors whose dtype in memory is another one than in the checkpoint
  /// (LoadOptions::cast).
  bool cast = false;
  /// transfer_learning: the share of the model's tensors, 0 to 1, that must match, those in
  /// reset_layers not counted. Whatever the type, at least one must.
  double min_match = 0;
  /// Modules and parameters that keep their values, by dotted paths. Not for warm_start.
  std::vector<std::string> reset_layers = {};
  bool operator==(const LoadingConfig&) const = default;
};

/// Parameters under `layers` (dotted paths) take no gradients.
struct FreezeModifier {
  std::vector<std::string> layers;
  bool operator==(const FreezeModifier&) const = default;
};

/// Low-rank adapters beside the linear layers under `target_modules` (dotted paths).
struct LoraModifier {
  std::uint64_t rank = 8;
  std::optional<double> alpha = {};  ///< absent: rank, so that the scale alpha / rank is 1
  double dropout = 0;                ///< from 0 to below 1
  std::vector<std::string> target_modules;
  bool operator==(const LoraModifier&) const = default;
};

/// Parameters under `layers` (dotted paths) get fresh values.
struct ResetModifier {
  std::vector<std::string> layers;
  bool operator==(const ResetModifier&) const = default;
};

/// Floating-point parameters under `layers` (dotted paths; none: of the whole model) become
/// `dtype`.
struct CastModifier {
  DType dtype = DType::f32;
  std::vector<std::string> layers = {};
  bool operator==(const CastModifier&) const = default;
};

using Modifier = std::variant<FreezeModifier, LoraModifier, ResetModifier, CastModifier>;

struct PipelineConfig {
  /// Loads may run beside the program.
  bool async_execution = true;
  int max_retries = 3;                                            ///< of a source
  std::chrono::milliseconds timeout = std::chrono::seconds(600);  ///< of a source, in all
  bool operator==(const PipelineConfig&) const = default;
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

/// Settings of a CheckpointManager (docs/configuration.md). Every block may be absent. Unknown keys
/// and values of a wrong type are errors that name file, line, key and the nearest key.
struct CAIRN_EXPORT Config {
  std::optional<Source> source;
  std::optional<LoadingConfig> loading;
  std::vector<Modifier> modifiers;  ///< in their order
  PipelineConfig pipeline;
  SaveConfig save;

  /// Errors: not_found, usage, unsupported, unsafe. Local.
  static Config from_file(const std::filesystem::path& path);
  /// `origin` names the text in errors. Errors: usage, unsupported, unsafe. Local.
  static Config from_string(const std::string& yaml, const std::string& origin = "configuration");
};

/// What of `config` is for resolve_source. Local.
CAIRN_EXPORT SourceSettings source_settings(const Config& config);

}  // namespace cairn
