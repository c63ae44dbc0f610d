#pragma once

#include <cstdint>
#include <string_view>

#include "cairn/export.hpp"

namespace cairn {

/// How bytes move between memory and the container.
enum class EngineKind : std::uint8_t {
  direct,  ///< each rank reads and writes its own extents with POSIX calls
  mpio,    ///< parallel HDF5: MPI-IO driver, collective metadata
};
/// "direct" or "mpio". Errors: usage. Local.
CAIRN_EXPORT EngineKind engine_from_string(std::string_view name);
/// Inverse of engine_from_string. Local.
CAIRN_EXPORT std::string_view to_string(EngineKind engine);

/// Data transfer mode of the mpio engine.
enum class Transfer : std::uint8_t { collective, independent };

}  // namespace cairn
