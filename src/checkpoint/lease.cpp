// The lease of a run's directory, `.lease`:
//  1. A would-be holder writes `.lease-<nonce>`, which says who it is.
//  2. It links that to `.lease`. Making a link is atomic, also by NFS; a lost answer is found out
//     by looking where the name leads.
//  3. Where a lease is there already, its holder is alive (then it is refused), dead, or on another
//     machine: then the file is watched, by the watcher's own clock, for a change.
//  4. A dead holder is succeeded by whoever has the right to: who made the link
//     `.lease-after-<its nonce>-<its nonce>`. If that one has died, too, the right is that of who
//     made `.lease-after-<holder>-<that one>`, and so on: a chain to which only its end can be
//     added, and by one alone, because no such link is ever removed while the lease is that of the
//     dead holder. Its end looks whether the lease still is, renames its file to `.lease`, and only
//     then removes the chain. Whoever comes late may make a link anew that was removed, and finds
//     by the same look that the lease is another one. No nonce ever comes back.
//  5. The holder counts heartbeats in the first line of the file that it made. When `.lease` leads
//     to another file, the lease is lost.
//  6. Who gives the lease back takes the right to succeed itself first, so that it can't remove the
//     lease of a successor.
// A holder that was taken for dead and wakes up finds its lease lost at its next heartbeat, or
// before its next save; no lease without the file system's help can exclude that two jobs think
// that they hold it for so long.
#include "checkpoint/lease.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "base/nonce.hpp"
#include "base/throw.hpp"
#include "manifest/names.hpp"
#include "os/fault.hpp"
#include "os/quiet_thread.hpp"
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
  int error = ::link(file.c_str(), link.c_str()) == 0 ? 0 : errno;
  if (fault_point("lease.link") == Fault::twice) error = EEXIST;
  if (error == 0) return true;
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

/// By whom somebody who has the right to replace a lease is followed. Who gives a lease back has
/// the right by a link to the lease itself.
std::uint64_t follower_of(std::uint64_t last, const LeaseHolder& claimant) {
  return claimant.nonce == last ? ~last : claimant.nonce;
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
  const fs::path claim = path_.parent_path() / names::lease_claim(holder_.nonce, holder_.nonce);
  try {
    if (!make_link(path_, claim)) return;
    fault_point("lease.leaving");
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
    look();
  } catch (const Error&) {
    // A file system that is out of order now may be in order at the next beat; if it was so for
    // long, somebody else has the lease by then, and that will be seen.
  }
}

void Lease::look() {
  const auto text = read_small_file(path_);
  if (!text || holder_of(*text).nonce != holder_.nonce) lost_ = true;
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

LeaseAttempt::Outcome LeaseAttempt::claim(const LeaseHolder& dead) {
  std::uint64_t last = dead.nonce;
  for (int rivals = 0; rivals < kMostTries; ++rivals) {
    const fs::path claim = dir_ / names::lease_claim(dead.nonce, last);
    if (make_link(candidate_, claim)) {
      claim_ = claim;
      return Outcome::ours;
    }
    const auto text = read_small_file(claim);
    if (!text) return Outcome::again;  // the lease has another holder by now
    if (!is_dead(claim, *text)) return Outcome::later;
    fault_point("lease.claimant");
    last = follower_of(last, holder_of(*text));
  }
  fail(
      Errc::io,
      "{} jobs died while they took the lease '{}' over; if nobody uses the directory '{}', remove "
      "its files '{}*'",
      kMostTries, lease_.string(), dir_.string(), lease_.filename().string());
}

LeaseAttempt::Outcome LeaseAttempt::succeed(const LeaseHolder& dead) {
  fault_point("lease.dead");
  if (const Outcome outcome = claim(dead); outcome != Outcome::ours) return outcome;
  try {
    fault_point("lease.claimed");
    const auto text = read_small_file(lease_);
    const bool still = text && holder_of(*text).nonce == dead.nonce;
    fault_point("lease.checked");
    if (still) move_in();
    remove_quietly(claim_);
    return still ? Outcome::ours : Outcome::again;
  } catch (...) {
    remove_quietly(claim_);
    throw;
  }
}

void LeaseAttempt::move_in() const {
  try {
    replace_file(candidate_, lease_);
    if (fault_point("lease.rename") == Fault::twice) replace_file(candidate_, lease_);
  } catch (const Error&) {
    // A server that answers twice says that there is no such file, once it has moved it.
    if (!is_mine()) throw;
  }
  // Somebody who was taken for dead while it had the right, and woke up, may have been later.
  const auto text = read_small_file(lease_);
  if (text && holder_of(*text).nonce != mine_.nonce) refuse(holder_of(*text));
}

bool LeaseAttempt::is_mine() const {
  const auto text = read_small_file(lease_);
  return text && holder_of(*text).nonce == mine_.nonce;
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
  std::vector<fs::path> claims;
  std::vector<fs::path> litter;
  std::error_code error;
  for (fs::directory_iterator at(dir_, error); !error && at != fs::directory_iterator();
       at.increment(error)) {
    const std::string name = at->path().filename().string();
    const auto holder = names::parse_lease_claim(name);
    // Nobody asks for claims to a lease of before; those to ours are a successor's.
    if (holder && *holder != mine_.nonce) claims.push_back(at->path());
    if (names::is_lease_candidate(name)) litter.push_back(at->path());
  }
  try {
    // Only while the lease is ours are all other claims older.
    if (is_mine()) {
      for (const fs::path& path : claims) remove_quietly(path);
    }
    for (const fs::path& path : litter) {
      const auto text = read_small_file(path);
      if (text && judge_life(holder_of(*text), mine_) == Life::dead) remove_quietly(path);
    }
  } catch (const Error&) {
    // Nobody misses it.
  }
}

std::unique_ptr<Lease> LeaseAttempt::take() {
  remove_quietly(candidate_);
  remove_litter();
  return std::make_unique<Lease>(std::move(*file_), lease_, mine_, options_.heartbeat);
}

}  // namespace cairn::detail
