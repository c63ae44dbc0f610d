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
  std::string from;
  std::string verify = "never";
  std::string broadcast = "auto";
  std::string cut = "rows";
  std::string json;
  std::optional<std::uint64_t> tensors;
  std::uint64_t budget_bytes = 0;
  std::optional<double> changed;  ///< share of the tensors; saves are deltas then
  int ranks = 10'000;
  int repeat = 5;
  bool durable = false;
  bool quick = false;
  bool async = false;
  bool statistics = false;
  bool replicated = false;
  int deflate = 0;
};

/// One thing that is timed, round by round; the warm-up round is not among the seconds, which are
/// those of the slowest rank.
struct Series {
  std::string name;
  std::vector<double> seconds;
};

/// First saves of a structure, round by round.
struct FirstTimes {
  Series save{"first save", {}};
  Series metadata{"its metadata", {}};  ///< what later saves need not do
  Series creation{"HDF5 creates the datasets", {}};
};

struct Times {
  std::vector<double> ours;
  std::vector<Series> limits;  ///< what ours is compared with; the first is the one of the ratio
  std::vector<Series> more;    ///< what else was timed
  std::vector<Series> shares;  ///< parts of ours, each by itself
  FirstTimes first;            ///< of saves that are not in the background
  /// Memory that the rank took that took most, in the first counted round: in the background from
  /// before Saver::prepare until the save was durable.
  std::uint64_t peak_bytes = 0;
  std::uint64_t first_peak_bytes = 0;  ///< the same in the warm-up round
  std::uint64_t read_bytes = 0;        ///< loads: by all ranks together, in the first counted round
};

SaveOptions save_options(const Options& options);

/// Saves to `container`, and writes the same buffers to `raw` in the raw ways. Leaves `container`.
/// Collective.
Times run_saves(const Comm& comm, const Options& options, Payload& payload,
                const std::filesystem::path& container, const std::filesystem::path& raw);

/// Saves to `container` in the background, and copies the same buffers to memory; times the calls,
/// and steps of a trainer with and without a save behind them. Collective.
Times run_async_saves(const Comm& comm, const Options& options, const Payload& payload,
                      const std::filesystem::path& container);

/// Loads from `container`, or from Options::from, and reads the same buffers from `raw` with pread,
/// after writing what is missing. Collective. Errors: corrupt when a load brings back other values
/// than were saved.
Times run_loads(const Comm& comm, const Options& options, Payload& payload,
                const std::filesystem::path& container, const std::filesystem::path& raw);

}  // namespace cairn::bench
