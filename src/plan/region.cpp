#include "plan/region.hpp"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>

namespace cairn::detail {

Shape row_major_strides(const Shape& shape, std::uint64_t item) {
  Shape strides(shape.size());
  std::uint64_t stride = item;
  for (std::size_t d = shape.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= shape[d];
  }
  return strides;
}

std::optional<Box> intersect(const Box& a, const Box& b) {
  Box common;
  for (std::size_t d = 0; d < a.start.size(); ++d) {
    const std::uint64_t start = std::max(a.start[d], b.start[d]);
    const std::uint64_t end = std::min(a.start[d] + a.count[d], b.start[d] + b.count[d]);
    if (start >= end) return std::nullopt;
    common.start.push_back(start);
    common.count.push_back(end - start);
  }
  return common;
}

namespace {

/// Appends the boxes of elements [start, start + count) of the sub-tensor spanned by dimensions >=
/// dim.
void append_boxes(const Shape& shape, std::size_t dim, Shape& prefix, std::uint64_t start,
                  std::uint64_t count, std::vector<Box>& boxes) {
  if (count == 0) return;
  std::uint64_t inner = 1;
  for (std::size_t d = dim + 1; d < shape.size(); ++d) inner *= shape[d];

  const auto rows = [&](std::uint64_t first, std::uint64_t number) {
    Box box;
    box.start = prefix;
    box.count.assign(prefix.size(), 1);
    box.start.push_back(first);
    box.count.push_back(number);
    for (std::size_t d = dim + 1; d < shape.size(); ++d) {
      box.start.push_back(0);
      box.count.push_back(shape[d]);
    }
    boxes.push_back(std::move(box));
  };
  const auto part_of_row = [&](std::uint64_t row, std::uint64_t from, std::uint64_t number) {
    prefix.push_back(row);
    append_boxes(shape, dim + 1, prefix, from, number, boxes);
    prefix.pop_back();
  };

  std::uint64_t row = start / inner;
  if (const std::uint64_t skipped = start % inner; skipped != 0) {
    const std::uint64_t head = std::min(count, inner - skipped);
    part_of_row(row++, skipped, head);
    count -= head;
  }
  if (count >= inner) rows(row, count / inner);
  row += count / inner;
  if (count % inner != 0) part_of_row(row, 0, count % inner);
}

}  // namespace

std::vector<Box> flat_to_boxes(const Shape& shape, std::uint64_t start, std::uint64_t count) {
  std::vector<Box> boxes;
  if (count == 0) return boxes;
  if (shape.empty()) {
    boxes.emplace_back();
    return boxes;
  }
  Shape prefix;
  append_boxes(shape, 0, prefix, start, count, boxes);
  return boxes;
}

bool is_contiguous(const Box& box, const Shape& shape) {
  std::size_t d = 0;
  while (d < shape.size() && box.count[d] == 1) ++d;  // outer dimensions with one index each
  if (d < shape.size()) ++d;                          // one dimension may be partial
  for (; d < shape.size(); ++d) {
    if (box.count[d] != shape[d]) return false;
  }
  return true;
}

std::optional<std::uint64_t> first_of_run(const Placement& piece) {
  if (piece.kind == Placement::Kind::flat) return piece.box.start[0];
  if (!is_contiguous(piece.box, piece.global_shape)) return std::nullopt;
  std::uint64_t first = 0;
  for (std::size_t d = 0; d < piece.box.start.size(); ++d) {
    first = first * piece.global_shape[d] + piece.box.start[d];
  }
  return first;
}

Region dense_region(const Shape& shape, bool flat, const Box& box, std::uint64_t offset,
                    std::uint64_t item) {
  Region region;
  if (flat) {
    region.boxes = flat_to_boxes(shape, box.start[0], box.count[0]);
    region.strides = row_major_strides(shape, item);
    region.base = offset - box.start[0] * item;
    return region;
  }
  if (box.elements() != 0) region.boxes.push_back(box);
  region.strides = row_major_strides(box.count, item);
  region.base = offset;
  for (std::size_t d = 0; d < box.start.size(); ++d) {
    region.base -= box.start[d] * region.strides[d];
  }
  return region;
}

Region region_of(const Placement& piece, std::uint64_t item) {
  return dense_region(piece.global_shape, piece.kind == Placement::Kind::flat, piece.box, 0, item);
}

std::uint32_t file_of(const TensorEntry& tensor) {
  return tensor.extents.empty() ? 0 : tensor.extents.front().file;
}

bool lies_in_rows(const TensorEntry& tensor, const Extent& extent) {
  return !extent.flat && tensor.layout == Layout::contiguous &&
         !is_contiguous(extent.box, tensor.shape);
}

std::uint64_t offset_in_rows(const TensorEntry& tensor, const Extent& extent) {
  std::uint64_t element = 0;
  for (std::size_t d = 0; d < extent.box.start.size(); ++d) {
    element = (extent.flat ? 0 : element * tensor.shape[d]) + extent.box.start[d];
  }
  return tensor.offset + element * item_bytes(tensor.dtype);
}

Region region_of(const TensorEntry& tensor, const Extent& extent) {
  const std::uint64_t item = item_bytes(tensor.dtype);
  if (tensor.layout == Layout::strided) {
    Region region;
    if (extent.box.elements() != 0) region.boxes.push_back(extent.box);
    region.base = extent.offset;
    region.strides = tensor.strides;
    return region;
  }
  if (!lies_in_rows(tensor, extent)) {
    return dense_region(tensor.shape, extent.flat, extent.box, extent.offset, item);
  }
  Region region = dense_region(tensor.shape, false, Box::whole(tensor.shape), tensor.offset, item);
  region.boxes = {extent.box};
  return region;
}

void order_by_strides(Box& box, Region& a, Region& b) {
  std::vector<std::size_t> order(box.start.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t x, std::size_t y) {
    if ((a.strides[x] == 0) != (a.strides[y] == 0)) return a.strides[x] == 0;
    return a.strides[x] > a.strides[y];
  });
  const auto permute = [&](Shape& shape) {
    Shape ordered;
    for (const std::size_t d : order) ordered.push_back(shape[d]);
    shape = std::move(ordered);
  };
  for (Shape* shape : {&box.start, &box.count, &a.strides, &b.strides}) permute(*shape);
}

void for_each_run(const Box& common, const Region& a, const Region& b, std::uint64_t item,
                  const std::function<void(std::uint64_t, std::uint64_t, std::uint64_t)>& run) {
  const std::size_t rank = common.start.size();
  // Inner dimensions that are adjacent in both regions make one run.
  std::uint64_t run_bytes = item;
  std::size_t outer = rank;
  while (outer > 0 && (common.count[outer - 1] == 1 ||
                       (a.strides[outer - 1] == run_bytes && b.strides[outer - 1] == run_bytes))) {
    run_bytes *= common.count[outer - 1];
    --outer;
  }
  Shape index = common.start;
  for (;;) {
    std::uint64_t at_a = a.base;
    std::uint64_t at_b = b.base;
    for (std::size_t d = 0; d < rank; ++d) {
      at_a += index[d] * a.strides[d];
      at_b += index[d] * b.strides[d];
    }
    run(at_a, at_b, run_bytes);
    std::size_t d = outer;
    while (d > 0 && ++index[d - 1] == common.start[d - 1] + common.count[d - 1]) {
      index[d - 1] = common.start[d - 1];
      --d;
    }
    if (d == 0) return;
  }
}

}  // namespace cairn::detail
