#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "cairn/checkpoint.hpp"

namespace cairn::bench {

/// Of this rank alone. Local.
double seconds_of(const std::function<void()>& operation);
/// Of the slowest rank, from a barrier on. Collective.
double timed(const Comm& comm, const std::function<void()>& operation);

/// Memory that `operation` took at its peak, on the rank that took most. Collective.
std::uint64_t peak_of(const Comm& comm, const std::function<void()>& operation);
/// The most memory since start_memory_peak() beyond `before`, on the rank that has most.
/// Collective.
std::uint64_t peak_beyond(const Comm& comm, std::uint64_t before);

/// Outside of what is timed. Collective.
void remove_on_root(const Comm& comm, const std::filesystem::path& path);

}  // namespace cairn::bench
