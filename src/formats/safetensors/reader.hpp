#pragma once

#include <cstdint>
#include <filesystem>

#include "cairn/manifest.hpp"
#include "formats/table_bytes.hpp"

namespace cairn::detail {

inline constexpr std::uint64_t kMostHeaderBytes = 100'000'000;  // the format's own limit

/// Reads the header of one safetensors file. Tensors keep their names; `__metadata__` becomes a
/// document of that name. `table_bytes` counts the file and its tensors. Local. Errors: not_found,
/// io; corrupt, unsupported, unsafe (read_safetensors_header).
Manifest read_safetensors(const std::filesystem::path& path, TableBytes& table_bytes);

}  // namespace cairn::detail
