#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "cairn/manifest.hpp"
#include "cairn/placement.hpp"

namespace cairn::detail {

/// Row-major distance between neighbours per dimension, in bytes.
Shape row_major_strides(const Shape& shape, std::uint64_t item);

/// The common part, or nothing where it is empty.
std::optional<Box> intersect(const Box& a, const Box& b);

/// The boxes, in row-major order and each dense within the range, that make up a flat element
/// range. At most 2 * rank - 1 of them. Zero elements give none.
std::vector<Box> flat_to_boxes(const Shape& shape, std::uint64_t start, std::uint64_t count);

/// Whether the box is one contiguous run of the row-major tensor.
bool is_contiguous(const Box& box, const Shape& shape);

/// The position, in the flattened tensor, of the first element of a piece that is one run of it;
/// nothing where the piece is several runs.
std::optional<std::uint64_t> first_of_run(const Placement& piece);

/// A part of a tensor and where each of its elements lies: element `i` (global index) is at
/// `base + sum(i[d] * strides[d])`, in bytes from the start of a file or of a buffer. Arithmetic is
/// modulo 2^64: `base` may lie before the start, the sum never does.
struct Region {
  std::vector<Box> boxes;
  std::uint64_t base = 0;
  Shape strides;
};

/// The region of a dense row-major piece (box or flat range) that starts at byte `offset`.
Region dense_region(const Shape& shape, bool flat, const Box& box, std::uint64_t offset,
                    std::uint64_t item);
Region region_of(const Placement& piece, std::uint64_t item);
/// The file of a tensor whose extents all lie in one, as those of a container do; 0 without
/// extents.
std::uint32_t file_of(const TensorEntry& tensor);
/// Whether an extent lies in rows, with the strides of its (contiguous) tensor, instead of densely.
bool lies_in_rows(const TensorEntry& tensor, const Extent& extent);
/// Where the first byte of an extent of a contiguous tensor is in the file.
std::uint64_t offset_in_rows(const TensorEntry& tensor, const Extent& extent);
/// The region of an extent in its file.
Region region_of(const TensorEntry& tensor, const Extent& extent);

/// Renames the dimensions so that for_each_run goes through `a` in ascending order as far as it
/// can: those of large strides outermost, and before them those that repeat what is there. The
/// regions' own boxes keep their dimensions.
void order_by_strides(Box& box, Region& a, Region& b);

/// Calls `run(position_a, position_b, bytes)` for the runs that are contiguous in both regions, for
/// all elements of `common`, in row-major order.
void for_each_run(const Box& common, const Region& a, const Region& b, std::uint64_t item,
                  const std::function<void(std::uint64_t, std::uint64_t, std::uint64_t)>& run);

}  // namespace cairn::detail
