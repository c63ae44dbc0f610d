#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "cairn/comm.hpp"
#include "mpi/pending_max.hpp"

namespace cairn::detail {

/// What the ranks tell each other.
struct Votes {
  std::uint64_t signal = 0;      ///< any rank's
  std::uint64_t minutes = 0;     ///< rank 0's: a save is due by the clock
  std::uint64_t time_limit = 0;  ///< rank 0's: the job's time is nearly over
  double term_age_s = 0;         ///< since any rank's first SIGTERM, where one came
};

/// How often the ranks vote, by the time that a step takes.
struct Cadence {
  static constexpr double kSeconds = 0.25;    ///< between two votes, about
  static constexpr double kFlight = 0.001;    ///< that a vote surely takes no longer than
  static constexpr std::uint64_t kMost = 64;  ///< steps between two votes

  std::uint64_t interval = 1;  ///< steps from one vote to the next
  std::uint64_t flight = 1;    ///< steps from a vote to its result

  static Cadence of(double seconds_of_a_step);
};

/// Votes that all ranks cast at the same step boundaries, and whose results all apply at the same
/// later ones. Between, nothing is sent.
class Agreement {
 public:
  explicit Agreement(const Comm& comm) : comm_(comm), pending_(comm) {}

  /// A step boundary at the time `now`. `mine` is asked where a vote is cast. An age in the result
  /// is that of `now`. Collective. Errors: mismatch, timeout.
  std::optional<Votes> at_step(std::uint64_t step, double now, const std::function<Votes()>& mine);
  /// Completes what is on its way; nothing where nothing is. An age in the result is that of the
  /// vote. Collective. Errors: as above.
  std::optional<Votes> complete();
  /// Seconds that did not belong to steps. Local.
  void forgive(double seconds) { forgiven_ += seconds; }
  /// The longest time from now to the boundary at which a vote that is not cast yet counts, by
  /// rank 0's steps. Local.
  double latency() const;

 private:
  void note_time(double now);
  /// The call at which the result counts.
  std::uint64_t cast(std::uint64_t step, double now, const Votes& mine);

  const Comm& comm_;
  PendingMax pending_;
  std::uint64_t calls_ = 0;
  std::uint64_t result_at_ = 0;  ///< in calls
  std::uint64_t vote_at_ = 1;
  Cadence cadence_;
  double step_seconds_ = 0;  ///< by the last votes
  double vote_time_ = 0;
  std::uint64_t vote_call_ = 0;
  double forgiven_ = 0;
};

}  // namespace cairn::detail
