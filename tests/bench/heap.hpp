#pragma once

#include <cstdint>

namespace cairn::bench {

/// Counts what this process takes from the heap through operator new (which cairn-bench replaces).

/// Forgets earlier peaks: the peak is now what is in use. Local.
void reset_heap_peak();
/// Bytes at the peak beyond what was in use at the last reset. Local.
std::uint64_t heap_peak();

}  // namespace cairn::bench
