#include "trainer/limit_watch.hpp"

#include <algorithm>
#include <utility>

#include "os/quiet_thread.hpp"

namespace cairn::detail {

std::chrono::milliseconds LimitWatch::usual_pace(std::optional<double> left) {
  constexpr double kLeast = 15;
  constexpr double kMost = 600;
  const double seconds = left ? std::clamp(*left / 2, kLeast, kMost) : kMost;
  return std::chrono::milliseconds(static_cast<std::int64_t>(1000 * seconds));
}

LimitWatch::LimitWatch(std::optional<double> left,
                       const std::function<SlurmAccess(std::function<bool()>)>& make_access,
                       Pace pace)
    : left_(left), pace_(std::move(pace)), access_(make_access([this] { return ended_.load(); })) {
  thread_ = quiet_thread([this] { watch(); });
}

LimitWatch::~LimitWatch() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  end_.notify_all();
  thread_.join();
}

std::optional<LimitWatch::Answer> LimitWatch::news() {
  if (!fresh_.exchange(false)) return std::nullopt;
  const std::lock_guard lock(mutex_);
  return answer_;
}

void LimitWatch::watch() {
  std::unique_lock lock(mutex_);
  while (!end_.wait_for(lock, pace_(left_), [this] { return ended_.load(); })) {
    lock.unlock();
    const Clock::time_point asked = Clock::now();
    const SlurmAnswer answer = ask_squeue(access_);
    lock.lock();
    if (!answer.is_known())
      continue;  // a controller that is restarted: what was known still counts
    left_ = answer.seconds_left;
    answer_.end.reset();
    if (left_) {
      answer_.end = asked + std::chrono::duration_cast<Clock::duration>(
                                std::chrono::duration<double>(*left_));
    }
    fresh_ = true;
  }
}

}  // namespace cairn::detail
