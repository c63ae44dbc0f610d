#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "cairn/checkpoint.hpp"

namespace cairn::tool {

/// SHA-256, in hexadecimal, of each tensor's row-major little-endian bytes, in the order of the
/// manifest: on rank 0; empty elsewhere. Collective; every rank hashes about the same number of
/// bytes, with a window of memory. Errors: corrupt, io.
std::vector<std::string> sha256_of_tensors(const Comm& comm, const Manifest& manifest);

/// SHA-256, in hexadecimal. Local.
std::string sha256_of(std::span<const std::byte> bytes);

}  // namespace cairn::tool
