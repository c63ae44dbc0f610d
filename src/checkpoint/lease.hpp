#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "cairn/run.hpp"
#include "checkpoint/lease_holder.hpp"
#include "os/file.hpp"

namespace cairn::detail {

/// A lease that this process holds, kept fresh by a thread. The thread writes into the file that it
/// made, whatever has its name by now: a lease that somebody took over is never written to.
class Lease {
 public:
  /// `file` is what `path` leads to.
  Lease(File file, std::filesystem::path path, LeaseHolder holder,
        std::chrono::milliseconds heartbeat);
  /// Gives it back. Blocks where the file system does.
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  bool lost() const noexcept { return lost_; }
  /// Looks whether the lease still is ours, as each heartbeat does. Errors: io.
  void look();
  const std::filesystem::path& path() const { return path_; }

 private:
  void beat();
  void keep_fresh(std::chrono::milliseconds heartbeat);

  File file_;
  std::filesystem::path path_;
  LeaseHolder holder_;
  std::uint64_t beats_ = 0;
  std::atomic<bool> lost_{false};
  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopped_ = false;
  std::thread heart_;
};

/// Takes the lease of a directory, step by step. Local.
class LeaseAttempt {
 public:
  /// Errors: io.
  LeaseAttempt(const std::filesystem::path& dir, const LeaseOptions& options);
  ~LeaseAttempt();
  LeaseAttempt(const LeaseAttempt&) = delete;
  LeaseAttempt& operator=(const LeaseAttempt&) = delete;

  /// True: it is ours. False: its holder has to be watched; call again in a moment. Errors:
  /// refused, io.
  bool advance();
  /// Whom watched() is about, for people; empty: nobody.
  std::string watched() const;
  /// Once, after advance() gave true.
  std::unique_ptr<Lease> take();

 private:
  struct Watch {
    std::string text;
    std::chrono::steady_clock::time_point since;
  };
  enum class Outcome { ours, again, later };

  Outcome try_once();
  /// Whether the holder that `text`, found at `path`, tells of is dead, as far as is known by now.
  /// Nothing: not yet. A holder that is alive is refused.
  std::optional<bool> is_dead(const std::filesystem::path& path, const std::string& text);
  Outcome succeed(const LeaseHolder& dead);
  /// Whether this attempt has the right to replace the lease of `dead`; `later` and `again` as of
  /// try_once().
  Outcome claim(const LeaseHolder& dead);
  /// Makes the candidate the lease. Errors: refused, io.
  void move_in() const;
  bool is_mine() const;
  /// Of processes that died while they tried.
  void remove_litter() const;
  [[noreturn]] void refuse(const LeaseHolder& holder) const;

  std::filesystem::path dir_;
  std::filesystem::path lease_;
  LeaseOptions options_;
  LeaseHolder mine_;
  std::filesystem::path candidate_;
  std::filesystem::path claim_;  ///< the right to succeed, while we have it
  std::optional<File> file_;
  std::map<std::filesystem::path, Watch> watches_;
};

}  // namespace cairn::detail
