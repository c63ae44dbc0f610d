#include "plan/chunks.hpp"

#include <algorithm>

#include "base/throw.hpp"
#include "plan/region.hpp"

namespace cairn::detail {
namespace {

constexpr std::uint64_t kSmallestTensor = 64 << 10;
constexpr std::uint64_t kChunkBytes = 1 << 20;
// Finding a chunk takes HDF5 1.10 a time that grows with their number.
constexpr std::uint64_t kMostChunks = 1024;

/// The largest part that a rank holds, as far as parts are boxes.
Shape largest_part(const TensorEntry& tensor) {
  if (tensor.placement == Placement::Kind::flat) return tensor.shape;
  Shape part(tensor.shape.size(), 1);
  for (const Extent& extent : tensor.extents) {
    if (extent.flat) return tensor.shape;
    for (std::size_t d = 0; d < part.size(); ++d) {
      part[d] = std::max(part[d], extent.box.count[d]);
    }
  }
  return part;
}

Shape grid_of(const TensorEntry& tensor) {
  Shape grid(tensor.shape.size(), 0);
  for (std::size_t d = 0; d < grid.size(); ++d) {
    grid[d] = (tensor.shape[d] + tensor.chunk[d] - 1) / tensor.chunk[d];
  }
  return grid;
}

}  // namespace

void choose_filters(TensorEntry& tensor, bool shuffle) {
  if (tensor.shape.empty() || tensor.bytes() < kSmallestTensor) return;
  const std::uint64_t item = item_bytes(tensor.dtype);
  const std::uint64_t wanted =
      std::clamp(tensor.bytes() / kMostChunks, kChunkBytes, kLargestChunk) / item;
  Shape chunk = largest_part(tensor);
  for (std::size_t d = 0; d < chunk.size() && element_count(chunk) > wanted; ++d) {
    const std::uint64_t inner = element_count(chunk) / chunk[d];
    chunk[d] = std::clamp<std::uint64_t>(wanted / inner, 1, chunk[d]);
  }
  tensor.layout = Layout::chunked;
  tensor.chunk = chunk;
  tensor.filters = kDeflated | (shuffle && item > 1 ? kShuffled : 0);
}

bool has_filters(std::span<const TensorEntry> tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const TensorEntry& tensor) {
    return tensor.filters != 0 && file_of(tensor) == 0;
  });
}

std::uint64_t chunk_count(const TensorEntry& tensor) {
  const std::uint64_t bytes = element_count(tensor.chunk) * item_bytes(tensor.dtype);
  if (tensor.chunk.size() != tensor.shape.size() || bytes == 0 || bytes > kLargestChunk) {
    fail(Errc::corrupt, "tensor '{}' cannot have chunks of {}", tensor.name,
         to_string(tensor.chunk));
  }
  return element_count(grid_of(tensor));
}

void for_each_chunk(const TensorEntry& tensor, const Box& box,
                    const std::function<void(std::uint64_t, const Box&)>& visit) {
  if (box.elements() == 0) return;
  const Shape grid = grid_of(tensor);
  const std::size_t rank = grid.size();
  Shape first(rank, 0);
  Shape last(rank, 0);
  for (std::size_t d = 0; d < rank; ++d) {
    first[d] = box.start[d] / tensor.chunk[d];
    last[d] = (box.start[d] + box.count[d] - 1) / tensor.chunk[d];
  }
  Shape at = first;
  for (;;) {
    std::uint64_t position = 0;
    Box chunk{Shape(rank, 0), tensor.chunk};
    for (std::size_t d = 0; d < rank; ++d) {
      position = position * grid[d] + at[d];
      chunk.start[d] = at[d] * tensor.chunk[d];
    }
    visit(position, chunk);
    std::size_t d = rank;
    while (d > 0 && at[d - 1] == last[d - 1]) {
      at[d - 1] = first[d - 1];
      --d;
    }
    if (d == 0) return;
    ++at[d - 1];
  }
}

std::vector<Box> slices_on_grid(const Box& box, const Shape& chunk, std::uint64_t most_elements) {
  const std::uint64_t elements = box.elements();
  std::vector<Box> slices;
  if (elements == 0) return slices;
  std::size_t d = 0;
  while (d + 1 < box.count.size() && box.count[d] == 1) ++d;
  const std::uint64_t row = elements / box.count[d];
  const std::uint64_t chunks = std::max<std::uint64_t>(most_elements / (row * chunk[d]), 1);
  const std::uint64_t end = box.start[d] + box.count[d];
  for (std::uint64_t at = box.start[d]; at < end;) {
    const std::uint64_t next = std::min(end, (at / chunk[d] + chunks) * chunk[d]);
    Box part = box;
    part.start[d] = at;
    part.count[d] = next - at;
    slices.push_back(part);
    at = next;
  }
  return slices;
}

}  // namespace cairn::detail
