#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace cairn::detail {

// All Local.

/// State of LibTorch's default CPU generator.
std::vector<std::byte> random_state();
/// Errors: corrupt, when the bytes are no state of a CPU generator; the generator is then as
/// before.
void set_random_state(const std::vector<std::byte>& state);
/// Starts LibTorch's default CPU generator anew.
void set_seed(std::uint64_t seed);
/// The seed that it was last started with.
std::uint64_t initial_seed();
/// Whether set_random_state would take it. Errors: corrupt.
void check_random_state(const std::vector<std::byte>& state);

}  // namespace cairn::detail
