#pragma once

#include <cstdint>
#include <functional>

namespace cairn::bench {

/// Bytes that `work` takes from the heap through operator new (which cairn-bench replaces) at its
/// peak, beyond what was in use before. Counts only during the call: counting costs time. Local.
std::uint64_t heap_peak_of(const std::function<void()>& work);

}  // namespace cairn::bench
