#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "cairn/export.hpp"
#include "trainer/slurm.hpp"

namespace cairn::detail {

/// Asks Slurm again and again how much time the job has left, on a thread of its own: a limit can
/// be changed while the job runs.
class CAIRN_EXPORT LimitWatch {
 public:
  using Clock = std::chrono::steady_clock;
  /// How long to wait until it is asked again, by the seconds that are left, where that is known.
  using Pace = std::function<std::chrono::milliseconds(std::optional<double> left)>;

  /// Half of what is left, at least 15 s and at most ten minutes: the nearer the end, the sooner a
  /// change is seen, and nobody asks a controller often.
  static std::chrono::milliseconds usual_pace(std::optional<double> left);

  /// `left`: what is known at the beginning. `make_access` gets what tells that the watch ends.
  /// Local.
  LimitWatch(std::optional<double> left,
             const std::function<SlurmAccess(std::function<bool()>)>& make_access = slurm_access,
             Pace pace = usual_pace);
  ~LimitWatch();
  LimitWatch(const LimitWatch&) = delete;
  LimitWatch& operator=(const LimitWatch&) = delete;

  struct Answer {
    std::optional<Clock::time_point> end;  ///< nothing: the job has no limit
  };
  /// What Slurm said since the last call; nothing where it was not asked, or did not answer. Does
  /// not wait for it.
  std::optional<Answer> news();

 private:
  void watch();

  std::optional<double> left_;  // the thread's
  Pace pace_;
  std::atomic<bool> ended_{false};
  SlurmAccess access_;
  std::mutex mutex_;
  std::condition_variable end_;
  Answer answer_;
  std::atomic<bool> fresh_{false};
  std::thread thread_;
};

}  // namespace cairn::detail
