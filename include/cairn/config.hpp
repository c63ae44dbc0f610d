#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
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
  cold_start,         ///< weights; epoch and step start at 0, without metrics
  weights_only,       ///< weights; epoch, step and metrics are the checkpoint's
  transfer_learning,  ///< the weights that fit
};

/// "warm_start", ... Local.
CAIRN_EXPORT std::string_view to_string(LoadingType type);

/// Tensors of the checkpoint whose names begin with `from` get `to` in its place; with `regex`,
/// every match of the ECMAScript expression `from` is replaced by `to` ($1, ... are its groups).
struct RenameRule {
  std::string from;
  std::string to;
  bool regex = false;
  bool operator==(const RenameRule&) const = default;
};

/// What a warm start on another number of ranks does to the learning rates: multiplied by the
/// quotient of the numbers, or by its root.
enum class RescaleRate : std::uint8_t { off, linear, sqrt };

struct LoadingConfig {
  LoadingType type = LoadingType::warm_start;
  /// Names that only one side has are errors. Always so for warm_start. A file that says nothing
  /// means false for transfer_learning; a program says it itself.
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
  /// When digests are checked (LoadOptions::verify).
  VerifyWhen verify = VerifyWhen::before;
  /// How what several ranks want comes to them (LoadOptions::broadcast).
  BroadcastReplicas broadcast = BroadcastReplicas::automatic;
  /// Copy what a load may change before its bytes move, so that a failure from there on leaves
  /// everything as it was, too: it costs the memory of the model and of the optimizer's state.
  bool keep_copy = false;
  RescaleRate rescale_lr = RescaleRate::off;  ///< warm_start
  /// transfer_learning: the share of the model's tensors, 0 to 1, that must match, those in
  /// reset_layers not counted. Whatever the type, at least one must.
  double min_match = 0;
  /// weights_only, transfer_learning: epoch, step at 0, no metrics. cold_start does so in any case.
  bool reset_progress = false;
  /// Modules and parameters that keep their values, by dotted paths. Not for warm_start.
  std::vector<std::string> reset_layers = {};
  bool operator==(const LoadingConfig&) const = default;
};

/// Who the run is, whatever file it begins with. Empty: nothing is said, and the source and the
/// strategy decide (CheckpointContext::run).
struct LineageConfig {
  std::string resume_run_id;  ///< the run that goes on
  std::string parent_run_id;  ///< the run that this one was forked from
  bool operator==(const LineageConfig&) const = default;
};

// The paths of modifiers, and of reset_layers, are dotted: a path names a module or parameter and
// all below it. In a component, * stands for any characters and ? for one; the component ** stands
// for any number of components. A path that names nothing on any rank is an error with near names.

/// Parameters under `layers` take no gradients.
struct FreezeModifier {
  std::vector<std::string> layers;
  bool operator==(const FreezeModifier&) const = default;
};

/// Low-rank adapters beside the linear layers at or under `target_modules`; see LoraAdapters.
struct LoraModifier {
  std::uint64_t rank = 8;
  std::optional<double> alpha = {};  ///< absent: rank, so that the scale alpha / rank is 1
  double dropout = 0;                ///< from 0 to below 1
  std::vector<std::string> target_modules;
  bool operator==(const LoraModifier&) const = default;
};

/// Modules under `layers` get fresh values, the same on all ranks.
struct ResetModifier {
  std::vector<std::string> layers;
  bool operator==(const ResetModifier&) const = default;
};

/// Floating-point parameters and buffers under `layers` (none: of the whole model) become `dtype`.
struct CastModifier {
  DType dtype = DType::f32;
  std::vector<std::string> layers = {};
  bool operator==(const CastModifier&) const = default;
};

/// A modifier of a type that the program registered; the other keys of its block as texts.
struct CustomModifier {
  std::string type;
  std::map<std::string, std::string> options = {};
  bool operator==(const CustomModifier&) const = default;
};

using Modifier =
    std::variant<FreezeModifier, LoraModifier, ResetModifier, CastModifier, CustomModifier>;

struct PipelineConfig {
  /// load_checkpoint_async fetches beside the program; otherwise in PendingLoad::get().
  bool async_execution = true;
  int max_retries = 3;  ///< of a source
  /// Of a whole load: source, opening, checks and moving.
  std::chrono::milliseconds timeout = std::chrono::seconds(600);
  /// Of a run's directory, pass over checkpoints that turn out to be damaged (skip_damaged).
  bool fallback = true;
  bool operator==(const PipelineConfig&) const = default;
};

enum class SaveUnit : std::uint8_t { minutes, epochs, train_steps };

/// A checkpoint every `save_frequency` units.
struct SaveTrigger {
  SaveUnit unit = SaveUnit::train_steps;
  std::uint64_t save_frequency = 0;
  /// How many of the newest stay; -1: all. Becomes RetentionPolicy::keep_last (at least 1), where
  /// that is 0 and nothing else saves from time to time; otherwise nothing acts on it.
  std::int64_t num_models_saved = -1;
  bool operator==(const SaveTrigger&) const = default;
};

/// How a trainer's callback answers to signals and to the end of its time.
struct PreemptionConfig {
  /// SIGTERM and SIGUSR1 make it save and stop.
  bool signals = true;
  /// Seconds from the start of the callback to the end of the job. Absent: what Slurm says.
  std::optional<double> time_limit_s = {};
  /// How long before that end the last save begins at the latest, in seconds, or twice the time of
  /// a save where that is longer. Absent: a twentieth of the time that was left at the start, at
  /// most 60.
  std::optional<double> lead_s = {};
  /// How many seconds a job lives on after SIGTERM. Absent: long enough for a whole checkpoint.
  std::optional<double> grace_s = {};
  bool operator==(const PreemptionConfig&) const = default;
};

struct SaveConfig {
  /// The run's directory. Not given: `root`/LineageConfig::resume_run_id, where both are; with a
  /// root alone a CheckpointManager takes the id of its run.
  std::filesystem::path dir;
  std::filesystem::path root;  ///< the directory of all runs
  /// false: nothing is saved by itself; what says when is 0 or empty then.
  bool enabled = true;
  // Each 0: no such saves. Where the file says 0 or nothing, the first trigger of the unit counts.
  std::uint64_t every_n_steps = 0;
  std::uint64_t every_n_epochs = 0;
  double every_minutes = 0;
  /// A metric whose improvement is saved; empty: none.
  std::string monitor;
  MetricOrder mode = MetricOrder::min;
  std::uint64_t save_top_k = 1;  ///< what counts as one: to be among so many best
  PreemptionConfig preemption;
  /// keep_last (0: see SaveTrigger::num_models_saved), keep_every_n_steps, keep_best
  RetentionPolicy retention;
  /// CheckpointCallback takes a RunLease, and gives a RestartGuard this limit.
  bool lease = true;
  std::uint64_t max_restarts = 5;
  std::vector<SaveTrigger> triggers;
  std::map<SaveUnit, std::string> name_templates;
  EngineKind engine = EngineKind::direct;
  Transfer transfer = Transfer::collective;
  MpioOptions mpio;
  bool durable = true;
  bool statistics = false;
  ReplicaCheck replica_check = ReplicaCheck::off;
  bool delta = false;  ///< SaveOptions::delta
  /// Set: periodic saves are made with save_checkpoint_async.
  std::optional<AsyncOptions> async;
};

/// Settings of a CheckpointManager (docs/configuration.md), which checks what a program filled in.
/// Every block may be absent. Unknown keys and values of a wrong type are errors that name file,
/// line, key and the nearest key. The file may hold other programs' sections beside these blocks;
/// keys of the legacy configuration in them are errors (cairn/legacy_config.hpp).
struct CAIRN_EXPORT Config {
  std::optional<Source> source;
  std::optional<LoadingConfig> loading;
  LineageConfig lineage;
  std::vector<Modifier> modifiers;  ///< in their order
  PipelineConfig pipeline;
  SaveConfig save;
  /// The directory of the format migrations (docs/migrations.md) that a checkpoint goes through
  /// before it is loaded; what is saved has them behind it. Only rank 0 reads it. Empty: none.
  std::filesystem::path migrations;

  /// Errors: not_found, usage, unsupported, unsafe. Local.
  static Config from_file(const std::filesystem::path& path);
  /// `origin` names the text in errors. Errors: usage, unsupported, unsafe. Local.
  static Config from_string(const std::string& yaml, const std::string& origin = "configuration");
};

/// What of `config` is for resolve_source. Local.
CAIRN_EXPORT SourceSettings source_settings(const Config& config);

}  // namespace cairn
