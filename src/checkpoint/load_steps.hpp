#pragma once

#include <functional>
#include <span>

#include "cairn/checkpoint.hpp"
#include "cairn/export.hpp"

namespace cairn::detail {

/// cairn::load_tensors, for who has to know whether a failed load may have changed the targets:
/// calls `before_move` on every rank when all checks have passed, before the first byte of a target
/// changes. It must neither throw nor communicate. Collective.
CAIRN_EXPORT LoadResult load_tensors(const Comm& comm, const Manifest& manifest,
                                     std::span<const MutableTensorView> targets,
                                     const LoadOptions& options,
                                     const std::function<void()>& before_move);

}  // namespace cairn::detail
