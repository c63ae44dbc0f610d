#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cairn/checkpoint.hpp"
#include "payload.hpp"

namespace cairn::bench {

struct Options {
  std::string op;
  std::string payload;
  std::string dir;
  std::string engine = "direct";
  std::string transfer = "collective";
  std::string keep;
  std::string json;
  std::optional<std::uint64_t> tensors;
  int ranks = 10'000;
  int repeat = 5;
  bool durable = false;
  bool quick = false;
  bool verify = false;
  bool async = false;
};

/// Seconds of the slowest rank, round by round; the warm-up rounds are not among them.
struct Times {
  std::vector<double> ours;
  std::vector<double> limit;
  double first_save_s = 0;     ///< the save that made the layout
  std::vector<double> behind;  ///< saves in the background: until durable, after the call returned
};

/// Saves to `container`, and writes the same buffers to `raw` with pwrite. Leaves both. Collective.
Times run_saves(const Comm& comm, const Options& options, const Payload& payload,
                const std::filesystem::path& container, const std::filesystem::path& raw);

/// Saves to `container` in the background, and copies the same buffers to memory; times the calls.
/// Collective.
Times run_async_saves(const Comm& comm, const Options& options, const Payload& payload,
                      const std::filesystem::path& container);

/// Loads from `container`, and reads the same buffers from `raw` with pread, after writing both.
/// Collective. Errors: corrupt when a load brings back other values than were saved.
Times run_loads(const Comm& comm, const Options& options, Payload& payload,
                const std::filesystem::path& container, const std::filesystem::path& raw);

}  // namespace cairn::bench
