#include "checkpoint/background.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <utility>

#include "base/throw.hpp"

namespace cairn::detail {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

Background::Background(const Comm& comm, const SaveOptions& options)
    : options_(options),
      funnelled_(!may_threads_call_mpi()),
      comm_(funnelled_ ? make_funnelled(comm, funnel_) : Comm(comm.raw(), comm.deadline())),
      votes_(comm.raw(), comm.deadline()) {
  at_finalize_.emplace([this] { drain(); });
  thread_ = std::thread([this] { run(); });
}

Background::~Background() {
  std::uint64_t given_up = 0;
  if (funnelled_) {
    const std::lock_guard lock(mutex_);
    given_up = begun_ - finished_;
    funnel_.cancel();
  }
  end_thread();
  if (given_up != 0 && votes_.is_root()) {
    fmt::print(stderr,
               "cairn: warning: {} save{} in the background given up: call wait() on all ranks "
               "before their owner ends\n",
               given_up, given_up == 1 ? " was" : "s were");
  }
}

void Background::close() {
  end_thread();
  comm_.close();
  votes_.close();
}

void Background::end_thread() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    changed_.notify_all();
  }
  thread_.join();
  at_finalize_.reset();
}

void Background::begin(std::unique_ptr<BackgroundSave> save) {
  const std::lock_guard lock(mutex_);
  queue_.push_back(std::move(save));
  ++begun_;
  changed_.notify_all();
}

std::uint64_t Background::poll() {
  std::uint64_t votes[2] = {funnelled_ && funnel_.is_pending() ? 0U : 1U, 0};
  {
    const std::lock_guard lock(mutex_);
    votes[1] = ~finished_;  // the maximum of complements is that of the minimum
  }
  votes_.all_reduce_max(std::span<std::uint64_t>(votes));
  if (votes[0] == 0) funnel_.execute();
  return ~votes[1];
}

std::optional<Error> Background::take_error(std::uint64_t number) {
  std::shared_ptr<AsyncSave::State> known;
  {
    const std::lock_guard lock(mutex_);
    if (number != taken_ || ended_.empty()) {
      fail(Errc::internal, "save number {} in the background has not ended", number);
    }
    known = std::move(ended_.front());
    ended_.pop_front();
    ++taken_;
  }
  const std::lock_guard lock(known->mutex);
  return known->error;
}

void Background::run() {
  for (;;) {
    std::unique_ptr<BackgroundSave> save;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;
      save = std::move(queue_.front());
      queue_.pop_front();
    }
    carry_out_one(*save);
    const std::lock_guard lock(mutex_);
    ended_.push_back(save->known);
    ++finished_;
    changed_.notify_all();
  }
}

void Background::carry_out_one(BackgroundSave& save) {
  const SaveRequest request{save.target,
                            save.partial,
                            save.state,
                            options_,
                            /*bytes_elsewhere=*/false,
                            /*in_background=*/true};
  StagedWriter writer(*save.staged);
  save.staged->wait_for_work();
  for (bool again = save.retry;; again = false) {
    try {
      const auto start = Clock::now();
      carry_out(comm_, request, *save.layout, save.start, writer,
                job_of(request, *save.layout, save.start), [](SaveStep) {});
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      if (save.staged->bytes() != 0) {
        write_speed_ = static_cast<double>(save.staged->bytes()) / seconds;
      }
      save.known->durable = true;
      break;
    } catch (...) {
      const Failure failure = describe_current_exception(comm_.rank());
      // Only what all ranks know lets all of them try again.
      if (again && failure.agreed && failure.code == Errc::io) {
        save.staged->rewind();
        continue;
      }
      const std::lock_guard lock(save.known->mutex);
      save.known->error.emplace(
          failure.code,
          fmt::format("{} (save of step {} in the background)", failure.text, save.state.step),
          failure.rank);
      break;
    }
  }
  save.staged->release();
}

/// Completes what was begun, at the last moment: nobody asks for failures any more. Collective
/// where polls are needed.
void Background::drain() {
  if (funnelled_) {
    while (poll() != begun_) {
    }
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return finished_ == begun_; });
  if (!comm_.is_root()) return;
  for (const auto& known : ended_) {
    if (known->error) fmt::print(stderr, "cairn: warning: {}\n", known->error->what());
  }
  ended_.clear();
}

}  // namespace cairn::detail
