#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "cairn/config.hpp"
#include "cairn/export.hpp"
#include "cairn/load.hpp"
#include "cairn/shape.hpp"

namespace cairn {

/// What the trainer tells about the state it saves.
struct CheckpointInfo {
  std::uint64_t epoch = 0;
  std::uint64_t global_step = 0;
  std::map<std::string, double> metrics = {};
  /// JSON by name, of the trainer's own: it is in CheckpointContext::documents as "user".
  std::map<std::string, std::string> metadata = {};
};

/// What became of a part of a trainer's state in a warm start.
struct StateReport {
  std::string name;  ///< "rng", "learning rate", or that of a Stateful, also of one nobody took
  std::string text;  ///< rank 0's words
  bool operator==(const StateReport&) const = default;
};

/// A tensor whose global shape in the checkpoint is another one than in the model.
struct ShapeMismatch {
  std::string name;
  Shape in_checkpoint;
  Shape in_memory;
  bool operator==(const ShapeMismatch&) const = default;
};

/// A tensor that a load left alone although both sides could have had it.
struct SkippedTensor {
  std::string name;
  std::string reason;
  bool operator==(const SkippedTensor&) const = default;
};

/// What a load did, tensor by tensor; the same on all ranks. What is in the checkpoint goes by its
/// name there, what only the model has by the name that it would be saved under.
struct LoadReport {
  std::vector<std::string> loaded;
  std::vector<std::string> missing;     ///< of the model, and not in the checkpoint
  std::vector<std::string> unexpected;  ///< of the checkpoint, and wanted by nobody
  std::vector<ShapeMismatch> mismatched;
  std::vector<SkippedTensor> skipped;
  std::vector<TensorCast> cast;
  /// Of which any rank filled a piece that the checkpoint does not hold as such: divided otherwise
  /// than they are stored. What is replicated and was, too, is none of these, on any number of
  /// ranks. A part that several ranks held may be stored in several (docs/format.md): then it is
  /// here although nothing else is divided; at most as many as there were ranks.
  std::vector<std::string> resharded;
  bool rng_restored = false;        ///< the random state is that of the saved run
  std::vector<StateReport> states;  ///< warm starts: what became of what is no tensor of the model
  /// Of the model's tensors, without those that were skipped as told: the loaded share, 0 to 1.
  double fraction_matched = 1;
};

/// What a modifier did.
struct ModifierReport {
  std::string type;
  std::vector<std::string> names;  ///< the parameters or modules that it changed, on any rank
  std::string text;                ///< a sentence about them, as rank 0 has it
};

/// Where a checkpoint stands among the runs. A field of its own, because a source says only where
/// the bytes came from.
struct Lineage {
  std::string run_id;         ///< of the run that saved it
  std::string uuid;           ///< of the checkpoint
  std::string parent_uuid;    ///< of the checkpoint that its run began with; empty: from nothing
  std::string parent_run_id;  ///< of the run that its run came from; empty: from none
  bool fork = false;          ///< its run was forked from that one
};

/// A part of a load.
struct StageTrace {
  std::string name;
  double seconds = 0;       ///< of the slowest rank
  std::uint64_t bytes = 0;  ///< that all ranks moved
  std::string result;       ///< "completed", or "failed: ..."
};

/// A loaded checkpoint's facts, the same on all ranks.
struct CAIRN_EXPORT CheckpointContext {
  std::filesystem::path path;
  std::string format;
  unsigned format_version = 0;
  std::uint64_t epoch = 0;
  std::uint64_t global_step = 0;
  std::map<std::string, double> metrics = {};
  int saved_world_size = 0;
  /// JSON by name: the metadata of the checkpoint.
  std::map<std::string, std::string> documents;
  std::vector<std::string> warnings;
  LoadReport report;
  std::vector<ModifierReport> modifiers;  ///< in their order
  Lineage lineage;
  Lineage run;    ///< of what this program saves from here on; without uuid
  Config config;  ///< that the load went by
  std::vector<StageTrace> trace;

  /// Refuses a checkpoint that lacks any of `fields`, naming all that it lacks. `purpose` is for
  /// the text. Fields are "optimizer", "scheduler", "rng" (restored), "metrics.<name>",
  /// "lineage.run_id", "lineage.uuid", "lineage.parent_uuid", "lineage.parent_run_id", and
  /// "metadata.<document>", on which keys of the document may follow:
  /// "metadata.config.model.width". Local, the same on all ranks. Errors: mismatch; usage (no such
  /// kind of field).
  void validate_for(const std::string& purpose, const std::vector<std::string>& fields) const;
};

/// As JSON objects. NaN and infinities are the strings "NaN", "Infinity" and "-Infinity". Local.
CAIRN_EXPORT std::string to_json(const LoadReport& report);
CAIRN_EXPORT std::string to_json(const CheckpointContext& context);

}  // namespace cairn
