#pragma once

#include <cstdint>

namespace cairn::bench {

/// What the kernel counts of this process. Everything is Local and 0 where /proc does not tell.

/// Starts a new count of the most memory in use, and returns what is in use now. Bytes.
std::uint64_t start_memory_peak();
/// The most memory in use since start_memory_peak(). Bytes.
std::uint64_t memory_peak();
/// Bytes that read calls have brought so far, from the page cache or from a disk.
std::uint64_t bytes_read();

}  // namespace cairn::bench
