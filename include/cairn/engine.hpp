#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
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

/// How what several ranks want (all of them, or a group) comes to them, with the engine direct.
enum class BroadcastReplicas : std::uint8_t {
  automatic,  ///< in the way that is faster in the first few MiB
  never,      ///< every rank reads it
  always,     ///< each byte is read by one rank and sent to the others
};

/// The implementation of MPI-IO inside the MPI library.
enum class IoComponent : std::uint8_t {
  automatic,  ///< the one that MPI chooses
  ompio,      ///< Open MPI's own
  romio,      ///< MPICH's, which Open MPI before 6 has as well
};

/// How the mpio engine uses MPI-IO. The same on all ranks.
struct MpioOptions {
  /// Hints for MPI_File_open ("cb_nodes": "2"). Rank 0's stderr names those without effect.
  std::map<std::string, std::string> hints{};
  /// Anything but automatic must be asked for before the process opens its first file by MPI-IO;
  /// otherwise it is an Error that says what to export instead.
  IoComponent component = IoComponent::automatic;
  /// A call of the library that makes no progress for this long ends the job (MPI_Abort): there is
  /// no way back out of it. Absent: the deadline of the Comm. Zero: never.
  std::optional<std::chrono::milliseconds> watchdog{};
  /// Saves: zlib's level, 1 to 9, for tensors of 64 KiB and more; their transfers are collective.
  /// 0: off.
  unsigned deflate = 0;
  /// Saves with deflate: first collect the first bytes of all elements of a chunk, then the second
  /// ones, ...: floats become smaller.
  bool shuffle = true;
};

}  // namespace cairn
