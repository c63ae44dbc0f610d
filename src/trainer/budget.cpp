#include "trainer/budget.hpp"

#include <algorithm>
#include <cmath>

namespace cairn::detail {
namespace {

constexpr double kMostLead = 60;
constexpr double kShare = 0.05;

}  // namespace

void SaveBudget::set_end(std::optional<double> end, double now, std::optional<double> lead) {
  lead_is_given_ = lead.has_value();
  least_lead_ = lead.value_or(0);
  move_end(end, now);
}

void SaveBudget::move_end(std::optional<double> end, double now) {
  end_ = end.value_or(kNever);
  if (lead_is_given_) return;
  const double usual = std::min(kMostLead, kShare * std::max(end_ - now, 0.0));
  least_lead_ = std::max(least_lead_, usual);
}

void SaveBudget::measured(double seconds) { last_[count_++ % last_.size()] = seconds; }

void SaveBudget::assume(double seconds, double now) {
  if (lead_is_given_) return;
  assumed_lead_ = std::clamp(2 * seconds, 0.0, std::max((end_ - now) / 2, 0.0));
}

double SaveBudget::expected() const { return *std::max_element(last_.begin(), last_.end()); }

double SaveBudget::lead() const {
  return std::max(least_lead_, is_measured() ? 2 * expected() : assumed_lead_);
}

std::uint64_t SaveBudget::signal_seconds(double latency) const {
  return static_cast<std::uint64_t>(std::ceil((2 * expected() + latency + 1) / 10)) * 10;
}

}  // namespace cairn::detail
