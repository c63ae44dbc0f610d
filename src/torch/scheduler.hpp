#pragma once

#include <functional>
#include <string>

#include "cairn/torch.hpp"
#include "torch/documents.hpp"

namespace cairn::detail {

/// The document "scheduler". Local. Errors: usage (a state that is no text); throws what the user's
/// scheduler throws.
Json scheduler_document(const SchedulerRef& scheduler);

/// A scheduler's new state, checked but not yet taken.
struct PreparedScheduler {
  std::function<void()> apply;     ///< throws what the user's scheduler throws
  std::function<void()> rollback;  ///< back to the state from before apply
  /// A scheduler that refuses its own state must not hide the error that all ranks agreed on.
  void roll_back() const noexcept;
};

/// Local. Throws Json::exception where the document is not as it must be.
/// Errors: mismatch (a LibTorch scheduler's state for the user's own, or the reverse).
PreparedScheduler prepare_scheduler(const SchedulerRef& scheduler, const Json& document);

}  // namespace cairn::detail
