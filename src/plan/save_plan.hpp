#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cairn/manifest.hpp"
#include "cairn/tensor_view.hpp"

namespace cairn::detail {

/// All ranks' pieces as the table of the checkpoint to be: every tensor once, its distinct pieces
/// as extents, each with one writer. Offsets are still unknown (0).
///
/// Replicas (equal pieces on several ranks) get the holder with the fewest bytes so far as writer.
/// Deterministic in `pieces_by_rank`. Errors: usage (names), mismatch (ranks disagree on dtype or
/// global shape; pieces overlap or leave gaps), each naming tensor and ranks.
std::vector<TensorEntry> plan_save(std::span<const std::vector<TensorView>> pieces_by_rank);

/// Chooses contiguous or chunked for a planned tensor (docs/format.md, "Layout") and sets layout
/// and chunk. Chunked needs a regular grid of large boxes that are not contiguous in row-major
/// order.
void choose_layout(TensorEntry& tensor);

/// Checks that the extents of a tensor tile it: each element in exactly one. O(n log n) in their
/// number. Errors: mismatch, naming the tensor and what is wrong.
void check_tiling(const TensorEntry& tensor);

/// Hash of names, dtypes and global shapes: equal for the same tensors on any number of ranks.
std::uint64_t structure_hash(const std::vector<TensorEntry>& tensors);

/// Hash of one rank's pieces: names, dtypes, placements. Never of addresses or values.
std::uint64_t pieces_hash(std::span<const TensorView> pieces);

}  // namespace cairn::detail
