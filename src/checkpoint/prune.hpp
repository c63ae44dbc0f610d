#pragma once

#include <filesystem>
#include <functional>
#include <span>

#include "checkpoint/run_listing.hpp"

namespace cairn::detail {

/// Removes the checkpoints of `listing` that go by `verdicts`, with their marks, and marks that
/// were left alone, in an order that leaves nothing unreadable when it is cut short. Calls `removed`
/// for each checkpoint that is gone. What can't be removed is a warning on stderr, and what it
/// needs stays with it. Calls no HDF5. Local.
void remove_checkpoints(const RunListing& listing, std::span<const Verdict> verdicts,
                        const std::function<void(const RunCheckpoint&)>& removed = {});

}  // namespace cairn::detail
