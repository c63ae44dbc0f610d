#pragma once

#include <cstdint>
#include <vector>

#include "cairn/checkpoint.hpp"

namespace cairn::detail {

/// verify_tensors for the tensors whose position in `manifest.tensors` is not 0 in `wanted`, which
/// is the same on every rank. Collective.
VerifyReport verify_wanted(const Comm& comm, const Manifest& manifest,
                           const std::vector<std::uint64_t>& wanted);

/// Hash of which files the manifest was made from, by path and content. Local.
std::uint64_t identity_of(const Manifest& manifest);

}  // namespace cairn::detail
