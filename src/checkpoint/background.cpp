#include "checkpoint/background.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>
#include <vector>

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

Background::Standing Background::standing() {
  Standing mine;
  mine.posted = funnelled_ && funnel_.is_pending();
  const std::lock_guard lock(mutex_);
  mine.finished = finished_;
  return mine;
}

std::uint64_t Background::poll() {
  if (lost_) throw Error(*lost_);
  const Standing mine = standing();
  // The maximum of complements is that of the minimum.
  std::uint64_t votes[3] = {mine.posted ? 0U : 1U, ~mine.finished,
                            has_waited_too_long(mine) ? 1U : 0U};
  votes_.all_reduce_max(std::span<std::uint64_t>(votes));
  const std::uint64_t finished_by_all = ~votes[1];
  const bool all_posted = votes[0] == 0;
  if (all_posted || finished_by_all != finished_by_all_) {
    waits_since_.reset();
  } else if (votes[2] != 0) {
    give_up(mine);
  }
  finished_by_all_ = finished_by_all;
  if (all_posted) funnel_.execute();
  return finished_by_all;
}

/// A wait that no collective bounds: threads post, or end, one by one, and those of some ranks
/// never.
bool Background::has_waited_too_long(const Standing& mine) {
  // Longer than ranks need to notice that the others' threads gave up.
  constexpr std::chrono::seconds kAfterThreads{5};
  if (!mine.posted && mine.finished == finished_by_all_) {
    waits_since_.reset();
    return false;
  }
  if (!waits_since_) waits_since_ = Clock::now();
  const Clock::duration limit = votes_.deadline();
  return Clock::now() - *waits_since_ >
         (thread_gave_up_ ? std::min<Clock::duration>(limit, kAfterThreads) : limit);
}

void Background::give_up(const Standing& mine) {
  constexpr std::size_t kBits = 64;
  const auto rank = static_cast<std::size_t>(votes_.rank());
  std::vector<std::uint64_t> behind(static_cast<std::size_t>(votes_.size()) / kBits + 1, 0);
  if (!mine.posted && mine.finished == finished_by_all_) {
    behind[rank / kBits] |= std::uint64_t{1} << rank % kBits;
  }
  votes_.all_reduce_or(behind);
  std::vector<int> missing;
  for (int r = 0; r < votes_.size(); ++r) {
    const auto bit = static_cast<std::size_t>(r);
    if ((behind[bit / kBits] >> bit % kBits & 1) != 0) missing.push_back(r);
  }
  const bool one = missing.size() == 1;
  lost_.emplace(
      Errc::timeout,
      fmt::format("save in the background: rank{} {} did not come within {} s; look at what {} "
                  "doing, then end the job: nothing can be saved in the background any more",
                  one ? "" : "s", fmt::join(missing, ", "),
                  std::chrono::duration<double>(votes_.deadline()).count(),
                  one ? "it is" : "they are"),
      missing.empty() ? 0 : missing.front());
  funnel_.cancel();
  throw Error(*lost_);
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
      if (failure.code == Errc::timeout) thread_gave_up_ = true;
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
  if (lost_) return;
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
