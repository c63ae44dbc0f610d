#pragma once

#include <cstdint>

#include "cairn/export.hpp"

namespace cairn::detail {

/// Notes SIGTERM and SIGUSR1 of this process while it lives. Handlers that were there before are
/// called, too, and are put back when the last watch ends; the default action (to die) and "ignore"
/// are replaced meanwhile. Any number of watches may live at a time. Local.
class CAIRN_EXPORT SignalWatch {
 public:
  /// Errors: io.
  SignalWatch();
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

  /// A signal that came since this watch began, SIGTERM before SIGUSR1; 0: none.
  int seen() const;
  /// Seconds since the first SIGTERM that came since this watch began, where one came.
  double term_age_s() const;

 private:
  std::uint64_t terms_;  ///< that had come before
  std::uint64_t users_;
};

}  // namespace cairn::detail
