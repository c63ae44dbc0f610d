#include "trainer/best.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace cairn::detail {

bool BestValues::improves(double value) {
  if (count_ == 0 || std::isnan(value)) return false;
  if (values_.size() >= count_ && !better(value, values_.back())) return false;
  const auto worse = [&](double a, double b) { return better(a, b); };
  values_.insert(std::upper_bound(values_.begin(), values_.end(), value, worse), value);
  if (values_.size() > count_) values_.pop_back();
  return true;
}

void BestValues::set(std::vector<double> values) {
  values_ = std::move(values);
  std::sort(values_.begin(), values_.end(), [&](double a, double b) { return better(a, b); });
  if (values_.size() > count_) values_.resize(count_);
}

}  // namespace cairn::detail
