#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "cairn/manifest.hpp"

namespace cairn::detail {

/// The bytes of the largest chunk with filters that is written or read.
inline constexpr std::uint64_t kLargestChunk = 64 << 20;

/// Gives a planned tensor of 64 KiB and more chunks and filters: kDeflated, and kShuffled where
/// wanted and elements have several bytes. Chunks are parts of what one rank holds, of about 1 MiB
/// or a 1024th of the tensor. Other tensors stay as they are.
void choose_filters(TensorEntry& tensor, bool shuffle);

/// Whether any of the tensors that lie in file 0 has filters.
bool has_filters(std::span<const TensorEntry> tensors);

/// Chunks of the grid of a chunked tensor, those at its edges included. Errors: corrupt for a chunk
/// without elements, or larger than any that choose_filters makes.
std::uint64_t chunk_count(const TensorEntry& tensor);

/// Calls `visit(position in row-major order of the grid, the chunk)` for all chunks that share
/// elements with `box`. A chunk at an edge is whole: its box passes the tensor's shape.
void for_each_chunk(const TensorEntry& tensor, const Box& box,
                    const std::function<void(std::uint64_t, const Box&)>& visit);

/// Cuts a box as slices_of does, but, where that is possible, between chunks.
std::vector<Box> slices_on_grid(const Box& box, const Shape& chunk, std::uint64_t most_elements);

}  // namespace cairn::detail
