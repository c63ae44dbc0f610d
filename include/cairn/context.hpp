#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "cairn/export.hpp"
#include "cairn/load.hpp"
#include "cairn/shape.hpp"

namespace cairn {

/// What the trainer tells about the state it saves.
struct CheckpointInfo {
  std::uint64_t epoch = 0;
  std::uint64_t global_step = 0;
  std::map<std::string, double> metrics = {};
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
  bool resharded = false;     ///< saved by another number of ranks
  bool rng_restored = false;  ///< the random state is that of the saved run
  /// Of the model's tensors, without those that were skipped as told: the loaded share, 0 to 1.
  double fraction_matched = 1;
};

/// A loaded checkpoint's facts, the same on all ranks.
struct CheckpointContext {
  std::filesystem::path path;
  std::string format;
  unsigned format_version = 0;
  std::uint64_t epoch = 0;
  std::uint64_t global_step = 0;
  std::map<std::string, double> metrics = {};
  int saved_world_size = 0;
  std::map<std::string, std::string> documents;  ///< JSON by name
  std::vector<std::string> warnings;
  LoadReport report;
};

/// The report as a JSON object. Local.
CAIRN_EXPORT std::string to_json(const LoadReport& report);

}  // namespace cairn
