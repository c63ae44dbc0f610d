#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <optional>

namespace cairn::detail {

/// What a save costs, and what time is left. Pure; times are seconds of one clock.
class SaveBudget {
 public:
  /// The job ends at `end`; absent: nobody knows.
  void set_end(std::optional<double> end, double now, std::optional<double> lead);
  /// The end is another one now; absent: there is none. A lead that was not given may grow by that.
  void move_end(std::optional<double> end, double now);
  double end() const { return end_; }
  /// The job ends at `end` at the latest, whatever was known before.
  void shorten(double end) { end_ = std::min(end_, end); }
  void measured(double seconds);
  /// What a save may take, until one is measured: where no lead was given, the lead is twice that,
  /// but at most half of the time that is left at `now`, so that a job gets on whatever it is told.
  void assume(double seconds, double now);

  bool is_measured() const { return count_ != 0; }
  /// Of a whole checkpoint: the longest of the last three; 0 before the first.
  double expected() const;
  /// How long before the end the last save has to begin: at least twice its expected time.
  double lead() const;
  /// Whether the last save has to begin now, when the next chance comes `latency` later.
  bool is_time(double now, double latency) const { return now + latency + lead() >= end_; }
  /// Whether a whole checkpoint that begins now would be ready in time, with a quarter to spare.
  bool whole_fits(double now) const { return now + 1.25 * expected() <= end_; }
  /// N of `--signal=B:USR1@N`: the lead by measured saves and `latency`, in whole tens.
  std::uint64_t signal_seconds(double latency) const;

 private:
  static constexpr double kNever = std::numeric_limits<double>::infinity();

  double end_ = kNever;
  double least_lead_ = 0;
  double assumed_lead_ = 0;
  bool lead_is_given_ = false;
  std::array<double, 3> last_{};
  std::uint64_t count_ = 0;
};

}  // namespace cairn::detail
