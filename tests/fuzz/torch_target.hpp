#pragma once

#include <cstdint>
#include <span>

namespace cairn::fuzz {

/// Reads bytes as a PyTorch file. Aborts when anything but an ordinary refusal happens, or when a
/// tensor's bytes lie outside the file.
void read_as_torch(std::span<const std::uint8_t> bytes);

}  // namespace cairn::fuzz
