#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/retention.hpp"

namespace cairn::detail {

/// What a decision about a checkpoint depends on.
struct CheckpointFacts {
  std::string name;  ///< of its file
  std::uint64_t step = 0;
  std::string committed_at;  ///< orders as texts do
  std::map<std::string, double> metrics;
  bool linked = false;  ///< `last` leads to it
  bool pinned = false;
  bool verified = false;
  bool bad = false;
  std::vector<std::string> needs;  ///< names of other checkpoints without which it can't be read
  std::string needed_by;  ///< a file that is no checkpoint of the run but needs this one; or none
};

struct RetentionRequest {
  RetentionPolicy policy;
  /// The one that was just saved: it is the most recent, whatever the clocks say. Empty: none.
  std::string_view saved;
  /// Those that are marked as bad go, unless another rule keeps them.
  bool remove_bad = false;
};

/// Whether a checkpoint stays, and by which rules; `why` is empty when it goes.
struct Verdict {
  std::vector<std::string> why;
  bool keep() const { return !why.empty(); }
};

/// One verdict for each checkpoint. Pure.
std::vector<Verdict> judge_retention(const RetentionRequest& request,
                                     std::span<const CheckpointFacts> checkpoints);

/// The positions of those that go, in the order in which they are to be removed: none before what
/// needs it, otherwise the oldest first. So whatever a removal that is cut short leaves can be
/// read. Pure.
std::vector<std::size_t> removal_order(std::span<const CheckpointFacts> checkpoints,
                                       std::span<const Verdict> verdicts);

}  // namespace cairn::detail
