#include "checkpoint/held_extents.hpp"

#include <algorithm>

#include "plan/part_digest.hpp"
#include "plan/region.hpp"

namespace cairn::detail {
namespace {

constexpr std::size_t kBits = 64;

bool contains(const Box& outer, const Box& inner) {
  for (std::size_t d = 0; d < outer.start.size(); ++d) {
    if (inner.start[d] < outer.start[d] ||
        inner.start[d] + inner.count[d] > outer.start[d] + outer.count[d]) {
      return false;
    }
  }
  return true;
}

/// Whether all elements of the extent are the piece's. False for some that are, where the two are
/// of different kinds and telling is not worth its while.
bool holds(const Placement& piece, const TensorEntry& tensor, const Extent& extent) {
  if (piece.elements() == element_count(tensor.shape)) return true;
  if (piece.kind != Placement::Kind::flat) {
    const Region region = region_of(tensor, extent);
    return std::all_of(region.boxes.begin(), region.boxes.end(),
                       [&](const Box& box) { return contains(piece.box, box); });
  }
  if (extent.flat) return contains(piece.box, extent.box);
  const auto first = first_of_run(Placement::block(tensor.shape, extent.box));
  return first && contains(piece.box, Box{{*first}, {extent.box.elements()}});
}

}  // namespace

HeldExtents::HeldExtents(const Manifest& manifest, std::span<const std::uint64_t> wanted,
                         std::span<const ReadItem> items) {
  const std::vector<TensorEntry>& tensors = manifest.tensors.all();
  std::size_t extents = 0;
  first_.reserve(wanted.size());
  for (std::size_t t = 0; t < wanted.size(); ++t) {
    first_.push_back(extents);
    if (wanted[t] != 0) extents += tensors[t].extents.size();
  }
  bits_.resize((extents + kBits - 1) / kBits);
  for (const ReadItem& item : items) {
    const TensorEntry& tensor = tensors[item.tensor];
    for (std::size_t e = 0; e < tensor.extents.size(); ++e) {
      if (!tensor.extents[e].digest || !holds(*item.piece, tensor, tensor.extents[e])) continue;
      mine_.push_back({&item, e});
      const std::size_t bit = first_[item.tensor] + e;
      bits_[bit / kBits] |= std::uint64_t{1} << bit % kBits;
    }
  }
}

void HeldExtents::share(const Comm& comm) { comm.all_reduce_or(bits_); }

bool HeldExtents::by_any_rank(std::size_t tensor, std::size_t extent) const {
  const std::size_t bit = first_[tensor] + extent;
  return (bits_[bit / kBits] >> bit % kBits & 1) != 0;
}

std::uint64_t digest_in_memory(const TensorEntry& tensor, const Extent& extent,
                               const ReadItem& item) {
  const std::uint64_t unit = item_bytes(tensor.dtype);
  const Region in_memory = region_of(*item.piece, unit);
  // The order of its elements is that of the boxes; strides do not matter here.
  const Region in_extent = region_of(tensor, extent);
  PartDigester digester(tensor, extent);
  for (const Box& box : in_extent.boxes) {
    for (const Box& held : in_memory.boxes) {
      const auto common = intersect(box, held);
      if (!common) continue;
      for_each_run(*common, in_memory, in_memory, unit,
                   [&](std::uint64_t at, std::uint64_t, std::uint64_t bytes) {
                     digester.update({item.data + at, bytes});
                   });
    }
  }
  return digester.value();
}

}  // namespace cairn::detail
