#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "cairn/context.hpp"
#include "cairn/export.hpp"
#include "cairn/torch.hpp"
#include "cairn/trainer.hpp"

namespace cairn {

/// Saves, resumes and stops a trainer as the block `save` of its configuration says
/// (docs/trainer.md):
///
///     cairn::CheckpointCallback callback(manager, *model, optimizer);
///     std::uint64_t step = callback.on_train_start().global_step;
///     while (step < end && !callback.should_stop()) {
///       ...
///       callback.on_step_end(++step);
///     }
///     callback.on_train_end();
///     return callback.exit_code();
///
/// All ranks call the same members with the same arguments, in the same order. What is passed to
/// the constructor must outlive the callback and stay where it is. One callback on a manager.
class CAIRN_EXPORT CheckpointCallback {
 public:
  /// From here on SIGTERM and SIGUSR1 make the loop save and stop, unless `save.preemption.signals`
  /// is off. Collective. Errors: usage, mismatch.
  CheckpointCallback(CheckpointManager& manager, torch::nn::Module& model);
  CheckpointCallback(CheckpointManager& manager, torch::nn::Module& model,
                     torch::optim::Optimizer& optimizer);
  CheckpointCallback(CheckpointManager& manager, torch::nn::Module& model,
                     torch::optim::Optimizer& optimizer, SchedulerRef scheduler);
  /// Puts the signals' handlers back, and gives the lease back. Does not communicate.
  ~CheckpointCallback();
  CheckpointCallback(const CheckpointCallback&) = delete;
  CheckpointCallback& operator=(const CheckpointCallback&) = delete;

  /// Takes the lease of `save.dir` (RunLease), unless `save.lease` is off, and counts the start
  /// (RestartGuard, `save.max_restarts`). Goes on from the newest checkpoint of `save.dir`; where
  /// there is none, begins with the configured source; where there is none either, returns an empty
  /// context (step 0), in which `modifiers` alone may be set: the model is prepared
  /// (CheckpointManager::prepare_model), as it also is before it goes on, and modifiers that change
  /// what a load brings are left out, with a warning on rank 0's stderr. Collective. Errors: those
  /// of CheckpointManager::prepare_model and load_checkpoint, which leaves the model prepared;
  /// refused (another job uses the directory, or the run starts again and again without progress).
  CheckpointContext on_train_start();
  /// The same where the program has loaded `loaded` itself, or (empty) begins anew. Collective.
  /// Errors: those of CheckpointManager::prepare_model; refused.
  void on_train_start(const CheckpointContext& loaded);

  /// After each step of the optimizer, counted from 1. Saves where one is due. The first call
  /// prepares saves in the background (CheckpointManager::prepare_save). Collective; most calls
  /// send nothing, unless a save is in the background. Errors: those of
  /// CheckpointManager::save_checkpoint; mismatch (ranks at different steps).
  void on_step_end(std::uint64_t step);
  /// After the last step of the epoch `epoch`, counted from 0. Collective. Errors: as above.
  void on_epoch_end(std::uint64_t epoch);
  /// After a validation of the newest step. The metrics are saved with that step; rank 0's count.
  /// Collective. Errors: as above; usage (the monitored metric is not among them).
  void on_validation_end(const std::map<std::string, double>& metrics);
  /// `add` is called on every rank before each save, to add metrics and metadata; with `save.async`
  /// also when the first step ends, where the saves are prepared. Local.
  void on_save_checkpoint(std::function<void(CheckpointInfo&)> add);
  /// For the handler that ends the training. Saves nothing: in the middle of a step there is no
  /// state to save. Completes saves in the background where all ranks have the same error, and says
  /// on rank 0's stderr what a new start will resume from. Collective where `error` is an Error
  /// that was agreed, otherwise Local. Never throws.
  void on_exception(const std::exception& error) noexcept;
  /// Saves the last step, unless it is saved, and waits until everything is durable. Collective.
  /// Errors: as those of on_step_end.
  void on_train_end();

  /// The loop should end now: a signal came, or the job's time is nearly over, and the state is
  /// saved. The same on all ranks. Local.
  bool should_stop() const;
  /// Why. Local.
  SaveCause stop_cause() const;
  /// What the program should return: 0, or kExitRequeue where it stopped early. Local.
  int exit_code() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cairn
