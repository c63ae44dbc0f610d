#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <memory>
#include <string>

#include "cairn/comm.hpp"
#include "cairn/export.hpp"
#include "cairn/source.hpp"

namespace cairn::detail {

/// A source that is got while the program does other things. Rank 0 fetches it on a thread that
/// calls neither MPI nor HDF5; all ranks together take what came.
class CAIRN_EXPORT Acquisition {
 public:
  /// Rank 0 looks for a local source, or begins to fetch one. What goes wrong, get() tells. Local.
  Acquisition(const Comm& comm, Source source, SourceSettings settings);
  /// Calls a fetch off. Local.
  ~Acquisition();
  Acquisition(const Acquisition&) = delete;
  Acquisition& operator=(const Acquisition&) = delete;

  /// Whether get() would not have to wait for the source, as far as this rank knows: only rank 0
  /// does. Local.
  bool is_over() const;
  /// Waits, and makes the files there on every node. Collective. Errors: those of resolve_source.
  std::filesystem::path get(const Comm& comm);
  /// Bytes that came from afar, on rank 0; what the cache had already does not count. Local.
  std::uint64_t bytes() const;
  /// When what SourceSettings::timeout allows is used up, for whatever follows get(): the time
  /// until then is what the source left of it, where it has no timeout of its own. About the same
  /// moment on all ranks, by rank 0's settings; once get() has returned. Local.
  std::chrono::steady_clock::time_point until() const { return until_; }
  /// That time as a whole. Local.
  std::chrono::milliseconds timeout() const { return timeout_; }

 private:
  class Waiting;

  const Source source_;
  const SourceSettings settings_;
  std::unique_ptr<Waiting> waiting_;  // on rank 0
  std::exception_ptr failure_;
  std::chrono::steady_clock::time_point until_{};
  std::chrono::milliseconds timeout_{0};
};

/// "pipeline.timeout (600 s)". Local.
CAIRN_EXPORT std::string limit_text(std::chrono::milliseconds timeout);

}  // namespace cairn::detail
