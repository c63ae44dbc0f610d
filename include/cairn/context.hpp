#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "cairn/export.hpp"

namespace cairn {

/// What the trainer tells about the state it saves.
struct CheckpointInfo {
  std::uint64_t epoch = 0;
  std::uint64_t global_step = 0;
  std::map<std::string, double> metrics = {};
};

/// What a load did, tensor by tensor. Names as in the checkpoint.
struct LoadReport {
  std::vector<std::string> loaded;
  bool resharded = false;     ///< saved by another number of ranks
  bool rng_restored = false;  ///< the random state is that of the saved run
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

}  // namespace cairn
