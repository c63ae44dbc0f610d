#pragma once

#include <chrono>
#include <string>

#include "cairn/export.hpp"

namespace cairn::detail {

/// Bounds what the calling thread does for as long as the object lives: check_time_limit() throws
/// once `until` has passed, and a Comm waits for other ranks little longer. Limits do not nest: the
/// outer one comes back when the inner one goes. Local.
class CAIRN_EXPORT TimeLimit {
 public:
  using Clock = std::chrono::steady_clock;

  /// `text` says whose limit it is, for errors: "pipeline.timeout (600 s)".
  TimeLimit(Clock::time_point until, std::string text);
  ~TimeLimit();
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;

  Clock::time_point until() const { return until_; }
  const std::string& text() const { return text_; }

 private:
  Clock::time_point until_;
  std::string text_;
  const TimeLimit* outer_;
};

/// The limit of this thread, or null. Local.
const TimeLimit* time_limit();

/// For work that takes long, between its parts. Local. Errors: timeout.
CAIRN_EXPORT void check_time_limit();

}  // namespace cairn::detail
