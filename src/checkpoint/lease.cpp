// The lease of a run's directory, `.lease`:
//  1. A would-be holder writes `.lease-<nonce>`, which says who it is.
//  2. It links that to `.lease`. Making a link is atomic, also by NFS; a lost answer is found out
//     by looking where the name leads.
//  3. Where a lease is there already, its holder is alive (then it is refused), dead, or on another
//     machine: then the file is watched, by the watcher's own clock, for a change.
//  4. A dead holder is succeeded: by a link `.lease-after-<its nonce>`, which only one can make,
//     then, if the lease still is the dead one's, a rename of the candidate to `.lease`.
//  5. The holder counts heartbeats in the first line of the file that it made. When `.lease` leads
//     to another file, the lease is lost.
// A process that dies between the link and the rename of 4 leaves its claim; who finds that judges
// it like a lease. A holder that was taken for dead and wakes up finds its lease lost: for the time
// of a heartbeat two jobs may think that they hold it, which no lease without the file system's
// help can exclude.
#include "checkpoint/lease.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "base/nonce.hpp"
#include "base/throw.hpp"
#include "manifest/names.hpp"
#include "os/fault.hpp"
#include "os/small_file.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int kMostTries = 100;  // of steps that each end because somebody else was faster

bool is_same_file(const fs::path& a, const fs::path& b) {
  std::error_code error;
  return fs::equivalent(a, b, error) && !error;
}

/// Whether `link` is a new name of `file` now; false where the name was taken.
bool make_link(const fs::path& file, const fs::path& link) {
  if (::link(file.c_str(), link.c_str()) == 0) return true;
  const int error = errno;
  // A server that answers twice says "exists" of what it made itself.
  if (is_same_file(file, link)) return true;
  if (error == EEXIST) return false;
  if (error == EPERM || error == ENOTSUP || error == ENOSYS) {
    fail(Errc::io,
         "cannot take the lease '{}': the file system has no hard links; keep the run elsewhere, "
         "or switch the lease off (save.lease: false) and see to it that one job alone uses the "
         "directory",
         link.string());
  }
  fail_system("link", link, error);
}

/// Seconds between the last changes of two files, by the clock of whoever keeps them.
std::int64_t seconds_between(const fs::path& older, const fs::path& newer) {
  struct stat a {};
  struct stat b {};
  if (::stat(older.c_str(), &a) != 0 || ::stat(newer.c_str(), &b) != 0) return 0;
  return b.st_mtim.tv_sec - a.st_mtim.tv_sec;
}

/// The signals of the program are not for a thread that it does not know.
std::thread quiet_thread(std::function<void()> body) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread;
  try {
    thread = std::thread(std::move(body));
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace

Lease::Lease(File file, fs::path path, LeaseHolder holder, std::chrono::milliseconds heartbeat)
    : file_(std::move(file)), path_(std::move(path)), holder_(std::move(holder)) {
  heart_ = quiet_thread([this, heartbeat] { keep_fresh(heartbeat); });
}

Lease::~Lease() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  stop_.notify_all();
  heart_.join();
  if (lost_) return;
  // Not between a successor's look at the lease and its rename.
  const fs::path claim = path_.parent_path() / names::lease_claim(holder_.nonce);
  try {
    if (!make_link(path_, claim)) return;
  } catch (const Error&) {
    return;  // it will be taken for dead
  }
  try {
    if (const auto text = read_small_file(path_); text && holder_of(*text).nonce == holder_.nonce) {
      remove_quietly(path_);
    }
  } catch (const Error&) {
    // It will be taken for dead.
  }
  remove_quietly(claim);
}

void Lease::beat() {
  try {
    const std::string line = beat_line(++beats_);
    file_.write_at(0, std::as_bytes(std::span(line)), "lease.beat");
    file_.sync();
    const auto text = read_small_file(path_);
    if (!text || holder_of(*text).nonce != holder_.nonce) lost_ = true;
  } catch (const Error&) {
    // A file system that is out of order now may be in order at the next beat; if it was so for
    // long, somebody else has the lease by then, and that will be seen.
  }
}

void Lease::keep_fresh(std::chrono::milliseconds heartbeat) {
  std::unique_lock lock(mutex_);
  while (!stop_.wait_for(lock, heartbeat, [this] { return stopped_; })) {
    lock.unlock();
    beat();
    lock.lock();
    if (lost_) return;
  }
}

LeaseAttempt::LeaseAttempt(const fs::path& dir, const LeaseOptions& options)
    : dir_(dir),
      lease_(dir / names::kLease),
      options_(options),
      mine_(this_holder(random_nonce())),
      candidate_(dir / names::lease_candidate(mine_.nonce)) {
  if (options.heartbeat.count() <= 0)
    fail(Errc::usage, "the heartbeat of a lease must be positive");
  file_ = File::create(candidate_);
  try {
    const std::string text = lease_text(mine_, 0);
    file_->write_at(0, std::as_bytes(std::span(text)), "lease.write");
    file_->sync();
  } catch (...) {
    remove_quietly(candidate_);
    throw;
  }
}

LeaseAttempt::~LeaseAttempt() { remove_quietly(candidate_); }

bool LeaseAttempt::advance() {
  for (int tries = 0; tries < kMostTries; ++tries) {
    switch (try_once()) {
      case Outcome::ours:
        return true;
      case Outcome::later:
        return false;
      case Outcome::again:
        break;
    }
  }
  fail(Errc::io, "the lease '{}' changes all the time; several jobs want the directory '{}'",
       lease_.string(), dir_.string());
}

LeaseAttempt::Outcome LeaseAttempt::try_once() {
  if (make_link(candidate_, lease_)) return Outcome::ours;
  const auto text = read_small_file(lease_);
  if (!text) return Outcome::again;  // given back meanwhile
  const auto dead = is_dead(lease_, *text);
  if (!dead) return Outcome::later;
  return succeed(holder_of(*text));
}

std::optional<bool> LeaseAttempt::is_dead(const fs::path& path, const std::string& text) {
  const LeaseHolder holder = holder_of(text);
  const Life life = judge_life(holder, mine_);
  if (life == Life::dead) return true;
  if (life == Life::alive || options_.patience.count() <= 0) refuse(holder);
  auto [watch, is_new] = watches_.try_emplace(path, Watch{text, Clock::now()});
  if (!is_new && holder_of(watch->second.text).nonce != holder.nonce) {
    watch->second = {text, Clock::now()};
    is_new = true;
  }
  if (is_new) return std::nullopt;
  if (watch->second.text != text) refuse(holder);
  if (Clock::now() - watch->second.since < options_.patience) return std::nullopt;
  return true;
}

LeaseAttempt::Outcome LeaseAttempt::succeed(const LeaseHolder& dead) {
  const fs::path claim = dir_ / names::lease_claim(dead.nonce);
  if (!make_link(candidate_, claim)) {
    // Somebody else is at it, or died while it was.
    const auto text = read_small_file(claim);
    if (!text) return Outcome::again;
    if (!is_dead(claim, *text)) return Outcome::later;
    remove_quietly(claim);
    return Outcome::again;
  }
  fault_point("lease.claimed");
  try {
    const auto text = read_small_file(lease_);
    const bool still = text && holder_of(*text).nonce == dead.nonce;
    if (still) replace_file(candidate_, lease_);
    remove_quietly(claim);
    return still ? Outcome::ours : Outcome::again;
  } catch (...) {
    remove_quietly(claim);
    throw;
  }
}

void LeaseAttempt::refuse(const LeaseHolder& holder) const {
  // Both times are the file server's, so that no two clocks are compared.
  ::utimensat(AT_FDCWD, candidate_.c_str(), nullptr, 0);
  fail(
      Errc::refused,
      "the run directory '{}' is in use by {}; it last gave a sign of life {} s ago. Wait for that "
      "job, cancel it, or use another directory; only if you know that it is dead, remove '{}'",
      dir_.string(), describe(holder),
      std::max<std::int64_t>(seconds_between(lease_, candidate_), 0), lease_.string());
}

std::string LeaseAttempt::watched() const {
  return watches_.empty() ? "" : describe(holder_of(watches_.begin()->second.text));
}

void LeaseAttempt::remove_litter() const {
  std::vector<fs::path> dead;
  std::error_code error;
  for (fs::directory_iterator at(dir_, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    if (!names::is_lease_candidate(at->path().filename().string())) continue;
    try {
      const auto text = read_small_file(at->path());
      if (text && judge_life(holder_of(*text), mine_) == Life::dead) dead.push_back(at->path());
    } catch (const Error&) {
      // Nobody misses it.
    }
  }
  for (const fs::path& path : dead) remove_quietly(path);
}

std::unique_ptr<Lease> LeaseAttempt::take() {
  remove_quietly(candidate_);
  remove_litter();
  return std::make_unique<Lease>(std::move(*file_), lease_, mine_, options_.heartbeat);
}

}  // namespace cairn::detail
