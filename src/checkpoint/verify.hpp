#pragma once

#include <cstdint>
#include <vector>

#include "cairn/checkpoint.hpp"
#include "checkpoint/held_extents.hpp"

namespace cairn::detail {

/// verify_tensors for the tensors whose position in `manifest.tensors` is not 0 in `wanted`, which
/// is the same on every rank; but not for the extents of `held`. Collective.
VerifyReport verify_wanted(const Comm& comm, const Manifest& manifest,
                           const std::vector<std::uint64_t>& wanted,
                           const HeldExtents* held = nullptr);
/// Checks the extents of `held`, which were loaded, where they lie in memory. Every rank looks at
/// its own. Collective. Errors: timeout; damage is returned, not thrown.
std::vector<Defect> verify_held(const Comm& comm, const Manifest& manifest,
                                const HeldExtents& held);

/// Hash of which files the manifest was made from, by path and content. Local.
std::uint64_t identity_of(const Manifest& manifest);

}  // namespace cairn::detail
