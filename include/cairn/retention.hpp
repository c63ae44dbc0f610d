#pragma once

#include <cstdint>
#include <string>

namespace cairn {

/// Which values of a metric are better.
enum class MetricOrder : std::uint8_t { min, max };

/// The k checkpoints whose metric (CheckpointInfo::metrics) is best stay. One without the metric,
/// or with NaN, is none of them; of equal ones the one of the lower step is better.
struct KeepBest {
  std::uint64_t k = 0;  ///< 0: no such rule
  std::string metric;
  MetricOrder mode = MetricOrder::min;
  bool operator==(const KeepBest&) const = default;
};

/// Which checkpoints of a run's directory stay. One stays when any rule wants it; the others go
/// once another one is committed. Whatever the rules say, these stay: the newest, the one that
/// `last` links to, pinned ones, the last verified one, and what a checkpoint that stays needs.
/// Those that are marked as bad count for no rule and are not removed either: they are evidence,
/// and the run saves their step again.
struct RetentionPolicy {
  /// The most recently committed ones. 0: all stay, and the other rules have nothing to add.
  std::uint64_t keep_last = 0;
  /// Those whose step is a multiple of this. 0: no such rule.
  std::uint64_t keep_every_n_steps = 0;
  KeepBest keep_best{};
  bool operator==(const RetentionPolicy&) const = default;
};

}  // namespace cairn
