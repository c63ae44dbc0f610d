#pragma once

#include <cstdint>

namespace cairn::detail {

/// A random number by which a file is known; never 0, which is what a file without one holds.
std::uint64_t random_nonce();

}  // namespace cairn::detail
