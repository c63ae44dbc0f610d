#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

namespace cairn::detail {

/// Ends the job when a call into a library that communicates by itself makes no progress: such a
/// call cannot be given up, and the ranks that wait in it would wait for ever. On each rank that
/// waits it names rank, file and step on stderr; the ranks that say nothing are those that did not
/// come. Then MPI_Abort, and if that does not return either, the end of this process.
class Watchdog {
 public:
  /// Local. `limit`: the longest time without progress; zero: no watch. `subject` is what the calls
  /// work on, a path; `rank` is for messages. `activity` is called from another thread, now and
  /// then; a number that changed is progress. It may block.
  Watchdog(int rank, std::string subject, std::chrono::milliseconds limit,
           std::function<std::uint64_t()> activity);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// Makes the call under watch. `step` ("write") and `what` (a tensor) are for the message and
  /// must outlive the call. Local; the call may be collective.
  template <class F>
  decltype(auto) watch(std::string_view step, std::string_view what, F&& call) {
    const Scope scope(*this, step, what);
    return call();
  }

 private:
  using Clock = std::chrono::steady_clock;
  friend void watch_finalize(int, const std::string&, std::chrono::milliseconds,
                             const std::function<std::uint64_t()>&);

  class Scope {
   public:
    Scope(Watchdog& dog, std::string_view step, std::string_view what) : dog_(dog) {
      dog_.enter(step, what);
    }
    ~Scope() { dog_.leave(); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Watchdog& dog_;
  };

  void enter(std::string_view step, std::string_view what);
  void leave();
  void look_for_activity();
  void guard();
  void tell() const;
  [[noreturn]] void end_job() const;

  const int rank_;
  const std::string subject_;
  const std::chrono::milliseconds limit_;
  const std::chrono::milliseconds tick_;
  const std::function<std::uint64_t()> activity_;

  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopped_ = false;
  bool inside_ = false;
  std::string_view step_;
  std::string_view what_;
  Clock::time_point progress_;  // the last one
  // Two threads: looking may block where the file system does, and that must not keep the guard.
  std::thread looker_;
  std::thread guard_;
};

/// Watches MPI_Finalize in the same way: after a failure in a library that communicates, its own
/// clean-up may wait for ever. Local.
void watch_finalize(int rank, const std::string& subject, std::chrono::milliseconds limit,
                    const std::function<std::uint64_t()>& activity);

}  // namespace cairn::detail
