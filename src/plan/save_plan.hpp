#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cairn/manifest.hpp"
#include "cairn/tensor_view.hpp"
#include "plan/replicas.hpp"

namespace cairn::detail {

/// Dimensions of a container's tensor: HDF5's own limit (H5S_MAX_RANK).
inline constexpr std::uint16_t kMostRank = 32;
/// Of one dimension, in a tensor without elements: HDF5 rounds it up to a power of two.
inline constexpr std::uint64_t kMostExtent = (std::uint64_t{1} << 63) - 1;

/// What one rank tells rank 0: the groups that it is in, and the pieces that it describes.
struct RankReport {
  std::vector<std::uint64_t> groups;       ///< each once
  std::vector<TensorView> pieces;          ///< without data
  std::vector<std::uint64_t> piece_group;  ///< by piece
};
RankReport report_of(std::span<const TensorView> pieces, std::span<const Holding> holdings);
std::vector<std::byte> encode_report(const RankReport& report);
/// Errors: corrupt.
RankReport decode_report(std::span<const std::byte> bytes);

/// All ranks' pieces as the table of the checkpoint to be: every tensor once, in natural order of
/// the names; its distinct pieces as extents, each with a writer. Pieces that several ranks hold
/// are shared out (share_extents), so a piece may become several extents. Offsets are still unknown
/// (0).
///
/// Deterministic in `reports` (by rank). Errors: usage (names), unsupported (shapes that HDF5 has
/// not), mismatch (ranks disagree on dtype or global shape; pieces overlap or leave gaps), each
/// naming tensor and ranks.
std::vector<TensorEntry> plan_save(std::span<const RankReport> reports);

/// Chooses contiguous or chunked for a planned tensor (docs/format.md, "Layout") and sets layout
/// and chunk. Chunked needs a regular grid of large boxes that are not contiguous in row-major
/// order.
void choose_layout(TensorEntry& tensor);

/// Hash of names, dtypes and global shapes: equal for the same tensors on any number of ranks.
std::uint64_t structure_hash(const std::vector<TensorEntry>& tensors);

}  // namespace cairn::detail
