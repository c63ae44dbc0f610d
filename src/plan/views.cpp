#include "plan/views.hpp"

#include <utility>

#include "base/throw.hpp"
#include "plan/region.hpp"

namespace cairn::detail {
namespace {

constexpr std::size_t kMostPieces = std::size_t{1} << 20;

/// Collects the dense runs of a tensor.
class Pieces {
 public:
  explicit Pieces(const TensorEntry& like) {
    result_.dtype = like.dtype;
    result_.shape = like.shape;
  }

  /// The elements of `from` in `box`; the first of them is at `to` in the result.
  void add(const TensorEntry& from, const Box& box, const Shape& to) {
    if (from.filters != 0) {
      fail(Errc::unsupported,
           "tensor '{}' is compressed; 'cairn flatten' makes a file in which none is", from.name);
    }
    if (from.extents.empty()) return;  // no elements
    item_ = item_bytes(from.dtype);
    if (from.layout == Layout::contiguous) {
      file_ = from.extents.front().file;
      add_region(dense_region(from.shape, false, Box::whole(from.shape), from.offset, item_), box,
                 to);
      return;
    }
    for (const Extent& extent : from.extents) {
      file_ = extent.file;
      add_region(region_of(from, extent), box, to);
    }
  }

  TensorEntry finish(std::string name, Shape shape) {
    result_.name = std::move(name);
    result_.shape = std::move(shape);
    const bool whole =
        result_.extents.empty() ||
        (result_.extents.size() == 1 && result_.extents[0].box == Box::whole(result_.shape));
    result_.layout = whole ? Layout::contiguous : Layout::pieces;
    if (whole && !result_.extents.empty()) result_.offset = result_.extents[0].offset;
    return std::move(result_);
  }

 private:
  void add_region(const Region& region, const Box& box, const Shape& to) {
    for (const Box& stored : region.boxes) {
      if (const auto common = intersect(stored, box)) add_box(region, *common, box.start, to);
    }
  }

  /// Cuts a box where its bytes are no run.
  void add_box(const Region& region, const Box& common, const Shape& start, const Shape& to) {
    std::size_t dense = common.count.size();  // dimensions from here on are one run
    for (std::uint64_t run = item_; dense > 0; --dense) {
      const std::uint64_t count = common.count[dense - 1];
      if (count != 1 && region.strides[dense - 1] != run) break;
      run *= count;
    }
    std::uint64_t runs = 1;
    for (std::size_t d = 0; d < dense; ++d) runs *= common.count[d];
    if (result_.extents.size() + runs > kMostPieces) {
      fail(Errc::unsupported,
           "it would lie in more than {} runs of bytes; 'cairn convert' the file first",
           kMostPieces);
    }
    Box piece = common;
    for (std::size_t d = 0; d < dense; ++d) piece.count[d] = 1;
    for (std::uint64_t n = 0; n < runs; ++n) {
      std::uint64_t rest = n;
      for (std::size_t d = dense; d-- > 0; rest /= common.count[d]) {
        piece.start[d] = common.start[d] + rest % common.count[d];
      }
      put(region, piece, start, to);
    }
  }

  void put(const Region& region, const Box& piece, const Shape& start, const Shape& to) {
    Extent extent;
    extent.file = file_;
    extent.offset = region.base;
    extent.box = piece;
    for (std::size_t d = 0; d < piece.start.size(); ++d) {
      extent.offset += piece.start[d] * region.strides[d];
      extent.box.start[d] = piece.start[d] - start[d] + to[d];
    }
    result_.extents.push_back(std::move(extent));
  }

  TensorEntry result_;
  std::uint64_t item_ = 1;
  std::uint32_t file_ = 0;
};

}  // namespace

TensorEntry slice_of(const TensorEntry& tensor, const Box& box, std::string name) {
  Pieces pieces(tensor);
  pieces.add(tensor, box, Shape(box.count.size(), 0));
  return pieces.finish(std::move(name), box.count);
}

TensorEntry joined(const std::vector<const TensorEntry*>& parts, std::size_t dim,
                   std::string name) {
  Pieces pieces(*parts.front());
  Shape shape = parts.front()->shape;
  shape[dim] = 0;
  for (const TensorEntry* part : parts) {
    Shape to(shape.size(), 0);
    to[dim] = shape[dim];
    pieces.add(*part, Box::whole(part->shape), to);
    shape[dim] += part->shape[dim];
  }
  return pieces.finish(std::move(name), std::move(shape));
}

TensorEntry permuted(const TensorEntry& tensor, std::size_t dim,
                     std::span<const std::uint64_t> order) {
  Pieces pieces(tensor);
  for (std::size_t i = 0; i < order.size(); ++i) {
    Box row = Box::whole(tensor.shape);
    row.start[dim] = order[i];
    row.count[dim] = 1;
    Shape to(tensor.shape.size(), 0);
    to[dim] = i;
    pieces.add(tensor, row, to);
  }
  return pieces.finish(tensor.name, tensor.shape);
}

}  // namespace cairn::detail
