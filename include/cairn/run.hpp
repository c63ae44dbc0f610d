#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

#include "cairn/comm.hpp"
#include "cairn/export.hpp"

namespace cairn {

struct LeaseOptions {
  /// How often a holder shows that it is alive.
  std::chrono::milliseconds heartbeat = std::chrono::seconds(10);
  /// How long a holder on another machine must have shown nothing, while somebody watches, to count
  /// as dead; several heartbeats. 0: nobody watches, it counts as alive.
  std::chrono::milliseconds patience = std::chrono::seconds(60);
};

/// The right of one job to use a run's directory: a small file in it, which rank 0 holds and keeps
/// fresh from a thread that calls no MPI. It needs hard links, not locks, and no two clocks that
/// agree. The lease of a job that died is taken over: at once on the same machine, and by the same
/// Slurm job when it was requeued; otherwise after LeaseOptions::patience.
class CAIRN_EXPORT RunLease {
 public:
  /// Takes the lease of `run_dir`, which is made where it is missing. Rank 0's arguments count. May
  /// take `patience`. Collective. Errors: refused, when another job has it, with its owner, host,
  /// job and age; io.
  RunLease(const Comm& comm, const std::filesystem::path& run_dir, LeaseOptions options = {});
  /// Gives it back, as release() does.
  ~RunLease();
  RunLease(RunLease&&) noexcept;
  RunLease& operator=(RunLease&&) noexcept;

  /// Looks whether the lease still is this job's. Collective. Errors: refused, when another job
  /// took it over meanwhile, as happens to a job that was suspended for longer than its rival's
  /// patience, or when somebody removed it; io.
  void require(const Comm& comm) const;
  /// Whether that was seen, here or at a heartbeat; only rank 0 knows. Local.
  bool lost() const noexcept;
  /// Local.
  void release() noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;  // on rank 0
};

/// Stops a run that is started again and again and gets no further. The count lies in the run's
/// directory. A job's script that counts its starts itself (`cairn begin`, as jobs/ does), so that
/// those count, too, in which the program dies before it gets here, gives each start a name in the
/// variable CAIRN_START: a start of one name is counted once.
class CAIRN_EXPORT RestartGuard {
 public:
  /// `limit`: how many starts in a row may begin at the same step, or an earlier one, after the
  /// first; 0: any number. Local.
  RestartGuard(std::filesystem::path run_dir, std::uint64_t limit);

  /// Counts a start that begins at `step`; nothing: from the beginning. To be called once in each
  /// start, before anything is trained. Rank 0's arguments count. Collective. Errors: refused, past
  /// the limit, telling how to reset the count; io.
  void begin(const Comm& comm, std::optional<std::uint64_t> step) const;
  /// Forgets the count: the run has ended well. Collective.
  void finish(const Comm& comm) const;

 private:
  std::filesystem::path run_dir_;
  std::uint64_t limit_;
};

}  // namespace cairn
