#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "cairn/error.hpp"
#include "cairn/export.hpp"

namespace cairn {

/// What a save that is asked for while another is on its way does.
enum class WhenBusy : std::uint8_t {
  wait,   ///< waits until the other is durable
  skip,   ///< is not made
  queue,  ///< is staged now and written after the other; a third one waits
};

/// What a failure in the background does.
enum class OnFailure : std::uint8_t {
  fatal,  ///< is thrown by the next poll(), wait() or save, on all ranks
  warn,   ///< is told on rank 0's stderr; see also AsyncSave::error()
  retry,  ///< the save is written once more from its copy, where that is still whole; then fatal
};

/// How Saver::save_async works. The same on all ranks, except budget_bytes.
struct AsyncOptions {
  static constexpr std::uint64_t kLeastBudgetBytes = 16 << 20;
  /// The most memory that copies of tensors may take on this rank, at least 16 MiB. What does not
  /// fit is copied as room becomes free, and the call blocks for that long. 0: as much as the saves
  /// that were made needed to fit.
  std::uint64_t budget_bytes = 0;
  WhenBusy when_busy = WhenBusy::wait;
  OnFailure on_failure = OnFailure::fatal;
};

/// How long a save held the program up.
struct StagingTimes {
  std::uint64_t bytes = 0;  ///< that this rank copied
  /// What staging was expected to take on the slowest rank: by the speed of a copy, and, where the
  /// bytes do not fit the budget, by that of the last save's writes; before there was one, as if
  /// writing were as fast as copying.
  double predicted_s = 0;
  /// What staging took: from the first copy until all ranks had copied.
  double stalled_s = 0;
  /// What the call took: besides staging the wait for an earlier save, the layout of a new
  /// structure, the comparison of replicas and the digests of a delta.
  double call_s = 0;
};

/// A save that goes on while the program does. A copy refers to the same save. All members are
/// Local and may be called from any thread; they tell what this rank knows.
class CAIRN_EXPORT AsyncSave {
 public:
  struct State;
  explicit AsyncSave(std::shared_ptr<const State> state);

  std::uint64_t step() const;
  /// The save was not made, because another was on its way (WhenBusy::skip).
  bool skipped() const;
  /// Everything is copied: the state may change. True when save_async returned.
  bool staged() const;
  /// The checkpoint is published, and durable unless that is switched off.
  bool durable() const;
  /// Why it failed, once that is known.
  std::optional<Error> error() const;
  StagingTimes times() const;

 private:
  std::shared_ptr<const State> state_;
};

}  // namespace cairn
