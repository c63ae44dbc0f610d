#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "cairn/async.hpp"
#include "checkpoint/steps.hpp"
#include "mpi/funnel.hpp"
#include "mpi/lifetime.hpp"
#include "transfer/staging.hpp"

namespace cairn {

/// What is known of a save in the background. Written by one thread at a time, read by any.
struct AsyncSave::State {
  std::uint64_t step = 0;
  bool skipped = false;
  std::atomic<bool> staged = false;
  std::atomic<bool> durable = false;
  mutable std::mutex mutex;
  std::optional<Error> error;
  StagingTimes times;
};

}  // namespace cairn

namespace cairn::detail {

/// A save in the background: all that it needs when the program has gone on.
struct BackgroundSave {
  std::filesystem::path target;
  std::filesystem::path partial;
  StateView state;  ///< only the step
  std::shared_ptr<SaveLayout> layout;
  SaveStart start;
  std::shared_ptr<StagedSave> staged;  ///< the program may still be copying when a save has failed
  bool retry = false;
  std::shared_ptr<AsyncSave::State> known;
};

/// Carries saves out, one after the other, on a thread of its own. Its collectives go through their
/// own communicator: directly under MPI_THREAD_MULTIPLE, otherwise when poll() meets.
class Background {
 public:
  /// Collective. Errors: io, timeout. Lifetime: `options` must outlive this.
  Background(const Comm& comm, const SaveOptions& options);
  /// Local: see ~Saver.
  ~Background();
  /// Ends the thread, which must have nothing to do, and frees the communicators. Collective.
  void close();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  StagingRoom& room() { return room_; }
  /// Whether saves go on without poll().
  bool is_independent() const { return !funnelled_; }
  /// Queues a save; its staging may still go on. Local.
  void begin(std::unique_ptr<BackgroundSave> save);
  /// Saves begun. Equal on all ranks.
  std::uint64_t begun() const { return begun_; }
  /// Moves on what waits for all ranks; how many saves have ended on all of them. Collective.
  /// Errors: timeout, naming the ranks whose saves do not get on while others wait for them; from
  /// then on nothing will.
  std::uint64_t poll();
  /// Whether poll() gave up. The thread may wait for ever then, so that this must not be destroyed.
  bool is_lost() const { return lost_.has_value(); }
  /// The error of save number `number` (from 0), which has ended. Local.
  std::optional<Error> take_error(std::uint64_t number);
  /// Bytes per second that the writing thread reached last; 0: not known yet.
  double write_speed() const { return write_speed_; }

 private:
  /// How far this rank is, at one moment.
  struct Standing {
    bool posted = false;  ///< its thread waits for the other ranks'
    std::uint64_t finished = 0;
  };

  Standing standing();
  bool has_waited_too_long(const Standing& mine);
  [[noreturn]] void give_up(const Standing& mine);
  void run();
  void carry_out_one(BackgroundSave& save);
  void drain();
  void end_thread();

  const SaveOptions& options_;
  bool funnelled_;
  Funnel funnel_;
  Comm comm_;   // the thread's
  Comm votes_;  // the program's
  StagingRoom room_;
  std::optional<FinalizeHook> at_finalize_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::unique_ptr<BackgroundSave>> queue_;
  std::deque<std::shared_ptr<AsyncSave::State>> ended_;  // from number taken_ on
  std::uint64_t taken_ = 0;
  std::uint64_t begun_ = 0;
  std::uint64_t finished_ = 0;
  bool stop_ = false;
  // Of the program's thread: since when this rank waits for others, and what all have finished.
  std::optional<std::chrono::steady_clock::time_point> waits_since_;
  std::uint64_t finished_by_all_ = 0;
  std::optional<Error> lost_;
  std::atomic<bool> thread_gave_up_ = false;  // its communicator is unusable
  std::atomic<double> write_speed_ = 0;
  std::thread thread_;
};

}  // namespace cairn::detail
