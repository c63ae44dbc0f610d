#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cairn/dtype.hpp"
#include "cairn/engine.hpp"
#include "cairn/export.hpp"

namespace cairn {

/// Which of the targets a load fills: those whose name is in `names`, starts with one of
/// `prefixes`, or contains a match of `regex`. An empty filter takes all.
struct TensorFilter {
  std::vector<std::string> prefixes{};
  std::vector<std::string> names{};
  /// ECMAScript, searched for anywhere in the name: write ^ and $ to match it as a whole. At most
  /// 512 characters, the product of its repeat counts at most 100, no back-references: it is
  /// matched in a time that grows with the length of the name. Empty: none.
  std::string regex{};

  /// Local.
  bool is_empty() const { return prefixes.empty() && names.empty() && regex.empty(); }
};

/// When a load checks the digests of what it loads.
enum class VerifyWhen : std::uint8_t {
  never,
  /// Before the first byte of a target changes, sharing the work: reads everything a second time.
  before,
  /// Each rank in its own memory, once the bytes are there: nothing is read twice but extents of
  /// which no rank wants the whole, and what is converted; those are checked before. Damage is then
  /// an Error that says that the targets hold damaged bytes.
  loaded,
};

struct LoadOptions {
  /// How the bytes are read. Files that are no containers are always read directly.
  EngineKind engine = EngineKind::direct;
  Transfer transfer = Transfer::collective;
  MpioOptions mpio{};
  VerifyWhen verify = VerifyWhen::before;
  BroadcastReplicas broadcast = BroadcastReplicas::automatic;
  /// Convert tensors whose dtype in memory is another one than in the checkpoint: from any float to
  /// f64, f32, f16 and bf16 (to the nearest, ties to even; NaN stays NaN, what is too large becomes
  /// Inf), and between integers where every value fits. A value that does not fit is an Error
  /// before anything changes; to find it, integers that might not fit are read once more. Off:
  /// every difference is an Error.
  bool cast = false;
  /// Fill only these; other targets stay as they are, and none of their bytes are read.
  TensorFilter only{};
};

/// A tensor that was converted while it was loaded.
struct TensorCast {
  std::string name;
  DType from = DType::f32;  ///< in the checkpoint
  DType to = DType::f32;    ///< in memory
  bool operator==(const TensorCast&) const = default;
};

/// What a load did. The same on all ranks but for the numbers of bytes.
struct LoadResult {
  /// Bytes that this rank read for its targets: as they are stored, with what lies between
  /// neighbours that one request brought, and again where integers were looked at first; of files
  /// that HDF5 reads what it was asked for. The ranks share the reads for digests; those do not
  /// count.
  std::uint64_t bytes_read = 0;
  /// Bytes that this rank got from ranks that read them (LoadOptions::broadcast).
  std::uint64_t bytes_received = 0;
  std::uint64_t tensors = 0;      ///< tensors of the checkpoint of which any rank filled a piece
  std::vector<TensorCast> casts;  ///< by any rank, in the order of the checkpoint
};

}  // namespace cairn
