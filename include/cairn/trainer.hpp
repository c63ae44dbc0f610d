#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "cairn/comm.hpp"
#include "cairn/config.hpp"
#include "cairn/export.hpp"

namespace cairn {

/// The exit code of a trainer that saved and stopped before its end, and wants to be started again
/// (docs/trainer.md). Beside it: 0, finished; 2, an error.
inline constexpr int kExitRequeue = 85;

/// Why a checkpoint is made.
enum class SaveCause : std::uint8_t {
  none,
  steps,
  epochs,
  minutes,
  metric,
  signal,
  time_limit,
  end,
};
CAIRN_EXPORT std::string_view to_string(SaveCause cause);

/// What all ranks are to do at the place where they are; the same on all ranks.
struct SaveDecision {
  SaveCause cause = SaveCause::none;
  /// A whole checkpoint would not be ready in time: the model alone, under a name that no resume
  /// takes.
  bool weights_only = false;
  /// The step is saved, or is being saved, and that checkpoint lacks what was told since: where
  /// this save is left out, a resume from the other one goes on with less than there was.
  bool again = false;
  bool save() const { return cause != SaveCause::none; }
};

/// Decides when a trainer saves and stops. The decisions need no LibTorch and save nothing:
/// CheckpointCallback carries them out, and so may any other loop. All ranks make the same calls in
/// the same order with the same steps.
///
/// Steps, epochs and the end are counted by each rank. What only one rank knows (the time, a
/// signal) is agreed by a reduction that goes on while the ranks compute: one in as many steps as
/// fit into a quarter of a second, at most 64, whose result counts at a later step boundary that
/// all ranks know.
class CAIRN_EXPORT SaveSchedule {
 public:
  /// Seconds from any beginning.
  using Clock = std::function<double()>;

  /// Installs handlers for SIGTERM and SIGUSR1 where `save.preemption.signals` is set, and asks for
  /// the end of the job's time (rank 0). `comm` must outlive it; one schedule on a communicator.
  /// `clock`: the time, for tests. Collective. Errors: mismatch, io (signal handlers), timeout.
  SaveSchedule(const Comm& comm, const SaveConfig& save, Clock clock = {});
  /// Puts the handlers back. Does not communicate.
  ~SaveSchedule();
  SaveSchedule(SaveSchedule&&) noexcept;
  SaveSchedule& operator=(SaveSchedule&&) noexcept;

  /// After a step of the optimizer. Collective; most calls send nothing. Errors: mismatch (ranks
  /// at different steps), timeout.
  SaveDecision after_step(std::uint64_t step);
  /// After the epoch `epoch`, counted from 0, with the last step that was told. Where that step was
  /// saved before its epoch was over, it is to be saved again, whatever `save.every_n_epochs` says.
  /// Local, the same on all ranks; after a stop Collective. Errors: timeout.
  SaveDecision after_epoch(std::uint64_t epoch);
  /// After a validation; rank 0's metrics count. An improvement is to be saved, also where the step
  /// is. Collective. Errors: usage (the monitored metric is not among them), timeout.
  SaveDecision after_validation(const std::map<std::string, double>& metrics);
  /// At the end: what the last step still needs. Collective. Errors: mismatch, timeout (of votes).
  SaveDecision at_end();

  /// A checkpoint of the last step is made, or is being made, and held the loop up for so long.
  /// Local, on all ranks.
  void saved(double held_up_s);
  /// How long a whole checkpoint took, from its begin until it was published; the first one is told
  /// on rank 0's stderr, with the signal that fits the job. Local.
  void measured(double seconds);
  /// What a whole checkpoint may take until one was measured, in seconds: by default nothing. Only
  /// the lead before the end of the job goes by it, unless `save.preemption.lead` is given. Local.
  void assume(double seconds);
  /// Whether the job has an end that was known when the schedule was made, or a grace after
  /// SIGTERM: then a save may have to be of the model alone. The same on all ranks. Local.
  bool may_run_short() const;
  /// Where a run goes on: that step needs no checkpoint. Local.
  void resumed(std::uint64_t step);

  /// Why the loop should end; none: it should not. The same on all ranks. Local.
  SaveCause stop_cause() const;
  /// The signal that made it stop, where one did. Local.
  int signal() const;
  /// The best values so far, as JSON, for the checkpoint. Local.
  std::string state() const;
  /// Takes what state() gave. Local. Errors: corrupt.
  void load(const std::string& state);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cairn
