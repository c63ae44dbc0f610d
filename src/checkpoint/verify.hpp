#pragma once

#include <vector>

#include "cairn/checkpoint.hpp"

namespace cairn::detail {

/// verify_tensors for positions in `manifest.tensors`; the same list on every rank. Collective.
VerifyReport verify_positions(const Comm& comm, const Manifest& manifest,
                              const std::vector<std::size_t>& tensors);

}  // namespace cairn::detail
