#include "mpi/watchdog.hpp"

#include <fmt/format.h>
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "mpi/lifetime.hpp"

namespace cairn::detail {
namespace {

constexpr int kExitCode = 74;  // of sysexits: an input or output error
/// For the other ranks to tell where they wait, before MPI_Abort ends them.
constexpr std::chrono::seconds kGrace{2};
/// For MPI_Abort, which is not promised to work from another thread, or while the library waits.
constexpr std::chrono::seconds kAbortTime{10};

}  // namespace

Watchdog::Watchdog(int rank, std::string subject, std::chrono::milliseconds limit,
                   std::function<std::uint64_t()> activity)
    : rank_(rank),
      subject_(std::move(subject)),
      limit_(limit),
      tick_(std::clamp(limit / 8, std::chrono::milliseconds(1), std::chrono::milliseconds(1000))),
      activity_(std::move(activity)) {
  if (limit_.count() <= 0) return;
  looker_ = std::thread([this] { look_for_activity(); });
  try {
    guard_ = std::thread([this] { guard(); });
  } catch (...) {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    stop_.notify_all();
    looker_.join();
    throw;
  }
}

Watchdog::~Watchdog() {
  if (!guard_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  stop_.notify_all();
  guard_.join();
  looker_.join();
}

void Watchdog::enter(std::string_view step, std::string_view what) {
  if (limit_.count() <= 0) return;
  const std::lock_guard lock(mutex_);
  inside_ = true;
  step_ = step;
  what_ = what;
  progress_ = Clock::now();
}

void Watchdog::leave() {
  if (limit_.count() <= 0) return;
  const std::lock_guard lock(mutex_);
  inside_ = false;
}

void Watchdog::look_for_activity() {
  std::uint64_t last = activity_();
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    lock.unlock();
    const std::uint64_t now = activity_();
    lock.lock();
    if (std::exchange(last, now) != now) progress_ = Clock::now();
    stop_.wait_for(lock, tick_, [this] { return stopped_; });
  }
}

void Watchdog::guard() {
  std::unique_lock lock(mutex_);
  const auto is_stuck = [this] { return inside_ && Clock::now() - progress_ > limit_; };
  auto woke = Clock::now();
  while (!stop_.wait_for(lock, tick_, [this] { return stopped_; })) {
    // Time in which the whole process was stopped (a suspended job) is not the library's.
    const auto slept = Clock::now() - std::exchange(woke, Clock::now());
    if (slept > 10 * tick_ + std::chrono::seconds(1)) progress_ = woke;
    if (!is_stuck()) continue;
    if (is_mpi_finalised()) return;  // it was MPI_Finalize that was watched
    tell();
    const auto until = Clock::now() + kGrace;
    while (is_stuck() && Clock::now() < until) {
      if (stop_.wait_for(lock, std::chrono::milliseconds(50), [this] { return stopped_; })) return;
    }
    if (is_stuck()) end_job();
    fmt::print(stderr, "cairn: rank {}: it goes on after all\n", rank_);
  }
}

void Watchdog::tell() const {
  fmt::print(stderr,
             "cairn: rank {}: '{}': no progress within {} s in the step '{}'{}, inside MPI-IO. "
             "Either a rank did not come (one that prints no such line), or the library hangs, as "
             "it does on a full disk. There is no way back out of it, so the job is ended now; no "
             "checkpoint of before is harmed. Look after the ranks and the file system, use "
             "'engine: direct', or raise 'save.mpio.watchdog' where the transfer is only slow\n",
             rank_, subject_, std::chrono::duration<double>(limit_).count(), step_,
             what_.empty() ? "" : fmt::format(" of '{}'", what_));
}

void Watchdog::end_job() const {
  std::thread([] {
    std::this_thread::sleep_for(kAbortTime);
    _exit(kExitCode);
  }).detach();
  MPI_Abort(MPI_COMM_WORLD, kExitCode);
  _exit(kExitCode);
}

void watch_finalize(int rank, const std::string& subject, std::chrono::milliseconds limit,
                    const std::function<std::uint64_t()>& activity) {
  // Both live as long as the process: nothing of ours runs after MPI_Finalize to free them.
  auto hook = std::make_unique<FinalizeHook>([=] {
    auto dog = std::make_unique<Watchdog>(rank, subject, limit, activity);
    dog->enter("MPI_Finalize", {});
    static_cast<void>(dog.release());
  });
  static_cast<void>(hook.release());
}

}  // namespace cairn::detail
