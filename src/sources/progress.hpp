#pragma once

#include <chrono>
#include <string>

#include "cairn/source.hpp"

namespace cairn::detail {

/// A line on standard error that tells how far a fetch is, where standard error is a terminal; then
/// it goes away. Local.
class ProgressLine {
 public:
  explicit ProgressLine(std::string what);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(const FetchProgress& progress);

 private:
  std::string what_;
  bool is_terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

/// "pretrained.h5: 40 % of 1.5 GiB, 120 MiB/s"
std::string progress_text(const std::string& what, const FetchProgress& progress, double seconds);

}  // namespace cairn::detail
