#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "cairn/checkpoint.hpp"
#include "cairn/export.hpp"

namespace cairn::detail {

/// cairn::load_tensors, for who has to know whether a failed load may have changed the targets:
/// calls `before_move` on every rank when all checks have passed, before the first byte of a target
/// changes. It must neither throw nor communicate. `aftermath` is what errors from there on say of
/// the targets, where the caller puts them back; empty: that they are not to be used. Collective.
CAIRN_EXPORT LoadResult load_tensors(const Comm& comm, const Manifest& manifest,
                                     std::span<const MutableTensorView> targets,
                                     const LoadOptions& options,
                                     const std::function<void()>& before_move,
                                     std::string_view aftermath = {});

}  // namespace cairn::detail
