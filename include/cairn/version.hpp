#pragma once

// The one place of the version: CMake reads it here, too.
#define CAIRN_VERSION_MAJOR 0
#define CAIRN_VERSION_MINOR 1
#define CAIRN_VERSION_PATCH 0
#define CAIRN_VERSION_STRING "0.1.0"

namespace cairn {

/// Version of the container written by this library (docs/format.md). Readers refuse a newer one.
inline constexpr unsigned kFormatVersion = 1;

}  // namespace cairn
