#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "cairn/config.hpp"
#include "cairn/export.hpp"

namespace cairn::detail {

/// The best values of a metric so far, at most `count`. Pure.
class CAIRN_EXPORT BestValues {
 public:
  BestValues(MonitorMode mode, std::size_t count) : mode_(mode), count_(count) {}

  /// Whether `value` is among the best; then it is noted. NaN never is.
  bool improves(double value);
  const std::vector<double>& values() const { return values_; }  ///< the best first
  void set(std::vector<double> values);

 private:
  bool better(double a, double b) const { return mode_ == MonitorMode::min ? a < b : a > b; }

  MonitorMode mode_;
  std::size_t count_;
  std::vector<double> values_;
};

}  // namespace cairn::detail
