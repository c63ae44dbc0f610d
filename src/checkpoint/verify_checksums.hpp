#pragma once

#include <cstdint>
#include <vector>

#include "cairn/checkpoint.hpp"

namespace cairn::detail {

/// Whether all bytes of a tensor are under checksums of the format. Local.
bool is_covered(const Manifest& manifest, const TensorEntry& tensor);
/// The checksums over bytes of tensors whose position is not 0 in `wanted`; all where all tensors
/// are wanted. Local.
std::vector<Checksum> checksums_to_check(const Manifest& manifest,
                                         const std::vector<std::uint64_t>& wanted);
/// Checks this rank's share of the checksums. Local. Errors: io, mismatch.
std::vector<Defect> check_share(const Comm& comm, const Manifest& manifest,
                                const std::vector<Checksum>& checksums);

}  // namespace cairn::detail
