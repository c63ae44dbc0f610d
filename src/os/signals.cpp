#include "os/signals.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <mutex>
#include <system_error>

#include "base/throw.hpp"

namespace cairn::detail {
namespace {

using Clock = std::chrono::steady_clock;  // which a signal handler may read

/// What is known of a signal. Signals belong to the process, so this does, too.
struct Watched {
  static constexpr std::uint64_t kTimes = 16;  // a watch that waits for more takes a later one

  int number;
  std::atomic<std::uint64_t> count{0};
  std::array<std::atomic<Clock::rep>, kTimes> times{};  // of the last ones, by their counts
  std::atomic<bool> inside{false};
  struct sigaction before {};
};
std::array<Watched, 2> watched{{{SIGTERM}, {SIGUSR1}}};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free &&
                  std::atomic<Clock::rep>::is_always_lock_free,
              "for use in a signal handler");

std::mutex mutex;
int watches = 0;

void on_signal(int number, siginfo_t* info, void* where) {
  for (Watched& one : watched) {
    if (one.number != number) continue;
    // Ours may lie above and below a handler of the program's that calls what was there before.
    if (one.inside.exchange(true)) continue;
    // The time before the count that tells of it.
    const std::uint64_t before = one.count.load(std::memory_order_relaxed);
    one.times[before % Watched::kTimes] = Clock::now().time_since_epoch().count();
    one.count.store(before + 1, std::memory_order_release);
    if ((one.before.sa_flags & SA_SIGINFO) != 0) {
      one.before.sa_sigaction(number, info, where);
    } else if (one.before.sa_handler != SIG_DFL && one.before.sa_handler != SIG_IGN) {
      one.before.sa_handler(number);
    }
    one.inside = false;
  }
}

bool is_ours(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == on_signal;
}

void install(Watched& one) {
  struct sigaction current {};
  if (sigaction(one.number, nullptr, &current) == 0 && is_ours(current)) return;
  // Known before the handler can run.
  one.before = current;
  struct sigaction ours {};
  ours.sa_sigaction = on_signal;
  ours.sa_flags = SA_SIGINFO | SA_RESTART;
  sigemptyset(&ours.sa_mask);
  if (sigaction(one.number, &ours, nullptr) != 0) {
    fail(Errc::io, "no handler for signal {}: {}", one.number,
         std::generic_category().message(errno));
  }
}

/// Whoever put a handler above ours meanwhile calls ours, which then has to stay.
void put_back(Watched& one) {
  struct sigaction current {};
  if (sigaction(one.number, nullptr, &current) != 0 || !is_ours(current)) return;
  sigaction(one.number, &one.before, nullptr);
}

}  // namespace

SignalWatch::SignalWatch() : terms_(watched[0].count), users_(watched[1].count) {
  const std::lock_guard lock(mutex);
  if (watches == 0) {
    for (Watched& one : watched) install(one);
  }
  ++watches;
}

SignalWatch::~SignalWatch() {
  const std::lock_guard lock(mutex);
  if (--watches != 0) return;
  for (Watched& one : watched) put_back(one);
}

int SignalWatch::seen() const {
  if (watched[0].count.load(std::memory_order_relaxed) != terms_) return SIGTERM;
  if (watched[1].count.load(std::memory_order_relaxed) != users_) return SIGUSR1;
  return 0;
}

double SignalWatch::term_age_s() const {
  const Watched& term = watched[0];
  if (term.count.load(std::memory_order_acquire) == terms_) return 0;
  const Clock::duration came(term.times[terms_ % Watched::kTimes].load());
  return std::chrono::duration<double>(Clock::now().time_since_epoch() - came).count();
}

}  // namespace cairn::detail
