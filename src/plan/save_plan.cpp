#include "plan/save_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "manifest/codec.hpp"
#include "manifest/names.hpp"
#include "plan/region.hpp"

namespace cairn::detail {
namespace {

// HDF5 keeps a chunk's size in 32 bits; below 64 KiB a chunk's index entry costs more than rows do.
constexpr std::uint64_t kLargestChunkBytes = (std::uint64_t{1} << 32) - 1;
constexpr std::uint64_t kSmallestChunkBytes = 64 << 10;

/// A tensor while its pieces come in.
struct Gathering {
  TensorEntry entry;
  int first_rank = 0;
  // Piece -> position in entry.extents, and who holds it.
  std::map<std::tuple<bool, Shape, Shape>, std::size_t> extent_of;
  std::vector<std::vector<int>> holders;
};

void check_agreement(const Gathering& known, const TensorView& piece, int rank) {
  const TensorEntry& entry = known.entry;
  if (entry.dtype != piece.dtype) {
    fail(Errc::mismatch,
         "tensor '{}' is {} on rank {} but {} on rank {}; every rank must give the "
         "same dtype",
         entry.name, to_string(entry.dtype), known.first_rank, to_string(piece.dtype), rank);
  }
  if (entry.shape != piece.placement.global_shape) {
    fail(Errc::mismatch,
         "tensor '{}' has global shape {} on rank {} but {} on rank {}; every rank "
         "must give the same global shape",
         entry.name, to_string(entry.shape), known.first_rank,
         to_string(piece.placement.global_shape), rank);
  }
  const bool was_flat = entry.placement == Placement::Kind::flat;
  const bool is_flat = piece.placement.kind == Placement::Kind::flat;
  if (was_flat != is_flat) {
    fail(Errc::mismatch,
         "tensor '{}' is placed {} on rank {} but {} on rank {}; ranks may not mix "
         "boxes and flat ranges",
         entry.name, to_string(entry.placement), known.first_rank, to_string(piece.placement.kind),
         rank);
  }
}

void add_piece(Gathering& gathering, const TensorView& piece, int rank) {
  const Placement& placement = piece.placement;
  if (gathering.entry.placement == Placement::Kind::replicated &&
      placement.kind == Placement::Kind::block) {
    gathering.entry.placement = placement.kind;
  }
  if (placement.elements() == 0) return;
  const bool flat = placement.kind == Placement::Kind::flat;
  const auto [it, is_new] = gathering.extent_of.try_emplace(
      std::tuple(flat, placement.box.start, placement.box.count), gathering.entry.extents.size());
  if (is_new) {
    Extent extent;
    extent.flat = flat;
    extent.box = placement.box;
    gathering.entry.extents.push_back(std::move(extent));
    gathering.holders.emplace_back();
  }
  gathering.holders[it->second].push_back(rank);
}

/// A dataset can't be a group at the same time: "model/a" beside "model/a/b".
void check_nesting(const std::vector<TensorEntry>& tensors) {
  std::unordered_set<std::string_view> names;
  for (const TensorEntry& tensor : tensors) names.insert(tensor.name);
  for (const TensorEntry& tensor : tensors) {
    const std::string_view name = tensor.name;
    for (auto at = name.find('/'); at != std::string_view::npos; at = name.find('/', at + 1)) {
      if (names.contains(name.substr(0, at))) {
        fail(Errc::usage,
             "tensor '{}' lies below tensor '{}'; a name can't be a tensor and a group", name,
             name.substr(0, at));
      }
    }
  }
}

/// Largest extents first, each to the holder with the fewest bytes so far.
void assign_writers(std::vector<Gathering>& all, std::size_t ranks) {
  struct Item {
    std::uint64_t bytes;
    std::size_t tensor;
    std::size_t extent;
  };
  std::vector<std::uint64_t> load(ranks, 0);
  std::vector<Item> shared;
  for (std::size_t t = 0; t < all.size(); ++t) {
    for (std::size_t e = 0; e < all[t].holders.size(); ++e) {
      const std::uint64_t bytes =
          all[t].entry.extents[e].box.elements() * item_bytes(all[t].entry.dtype);
      if (all[t].holders[e].size() > 1) {
        shared.push_back({bytes, t, e});
        continue;
      }
      const int only = all[t].holders[e].front();
      all[t].entry.extents[e].writer = only;
      load[static_cast<std::size_t>(only)] += bytes;
    }
  }
  std::stable_sort(shared.begin(), shared.end(),
                   [](const Item& a, const Item& b) { return a.bytes > b.bytes; });
  for (const Item& item : shared) {
    const auto& holders = all[item.tensor].holders[item.extent];
    const int lightest = *std::min_element(holders.begin(), holders.end(), [&](int a, int b) {
      return load[static_cast<std::size_t>(a)] < load[static_cast<std::size_t>(b)];
    });
    all[item.tensor].entry.extents[item.extent].writer = lightest;
    load[static_cast<std::size_t>(lightest)] += item.bytes;
  }
}

/// Flat ranges tile a tensor when, sorted, each starts where the one before ends.
void check_flat_tiling(const TensorEntry& tensor) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  for (const Extent& extent : tensor.extents) {
    ranges.emplace_back(extent.box.start[0], extent.box.count[0]);
  }
  std::sort(ranges.begin(), ranges.end());
  std::uint64_t end = 0;
  for (const auto& [start, count] : ranges) {
    if (start != end) {
      fail(Errc::mismatch, "tensor '{}': its flat ranges {} at element {}", tensor.name,
           start < end ? "overlap" : "leave a gap", std::min(start, end));
    }
    end = start + count;
  }
  if (end != element_count(tensor.shape)) {
    fail(Errc::mismatch, "tensor '{}': its flat ranges end at element {} of {}", tensor.name, end,
         element_count(tensor.shape));
  }
}

/// The corners of a box with the sign of the mixed difference of its indicator function.
void add_corners(const Box& box, const std::vector<std::size_t>& dims, int sign,
                 std::vector<std::pair<Shape, int>>& corners) {
  for (std::size_t mask = 0; mask < (std::size_t{1} << dims.size()); ++mask) {
    Shape corner;
    int corner_sign = sign;
    for (std::size_t i = 0; i < dims.size(); ++i) {
      const bool far = (mask >> i & 1) != 0;
      corner.push_back(box.start[dims[i]] + (far ? box.count[dims[i]] : 0));
      if (far) corner_sign = -corner_sign;
    }
    corners.emplace_back(std::move(corner), corner_sign);
  }
}

}  // namespace

void check_tiling(const TensorEntry& tensor) {
  if (element_count(tensor.shape) == 0) return;
  if (tensor.placement == Placement::Kind::flat) return check_flat_tiling(tensor);
  if (tensor.extents.size() == 1 && tensor.extents.front().box == Box::whole(tensor.shape)) {
    return;
  }

  // Boxes tile the tensor exactly when their indicator functions add up to the tensor's; the mixed
  // difference of an indicator is its signed corners, and taking it loses nothing.
  std::vector<std::size_t> dims;  // dimensions in which some box is not whole
  for (std::size_t d = 0; d < tensor.shape.size(); ++d) {
    const bool cut =
        std::any_of(tensor.extents.begin(), tensor.extents.end(),
                    [&](const Extent& e) { return e.box.count[d] != tensor.shape[d]; });
    if (cut) dims.push_back(d);
  }
  constexpr std::size_t kMostCutDimensions = 8;
  if (dims.size() > kMostCutDimensions) {
    fail(Errc::unsupported, "tensor '{}' is cut along {} dimensions; at most {} are supported",
         tensor.name, dims.size(), kMostCutDimensions);
  }
  std::vector<std::pair<Shape, int>> corners;
  add_corners(Box::whole(tensor.shape), dims, -1, corners);
  std::uint64_t covered = 0;
  for (const Extent& extent : tensor.extents) {
    add_corners(extent.box, dims, 1, corners);
    covered += extent.box.elements();
  }
  std::sort(corners.begin(), corners.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (std::size_t i = 0; i < corners.size();) {
    int sum = 0;
    std::size_t end = i;
    for (; end < corners.size() && corners[end].first == corners[i].first; ++end) {
      sum += corners[end].second;
    }
    if (sum != 0) {
      const std::uint64_t total = element_count(tensor.shape);
      fail(Errc::mismatch,
           "tensor '{}' of shape {}: the ranks' pieces {} (they hold {} of {} "
           "elements; look near {})",
           tensor.name, to_string(tensor.shape),
           covered > total   ? "overlap"
           : covered < total ? "leave gaps"
                             : "overlap and leave gaps",
           covered, total, to_string(corners[i].first));
    }
    i = end;
  }
}

void choose_layout(TensorEntry& tensor) {
  tensor.layout = Layout::contiguous;
  if (tensor.placement != Placement::Kind::block || tensor.extents.size() < 2) return;
  const Shape& chunk = tensor.extents.front().box.count;
  const std::uint64_t chunk_bytes = element_count(chunk) * item_bytes(tensor.dtype);
  if (chunk_bytes < kSmallestChunkBytes || chunk_bytes > kLargestChunkBytes) return;
  bool all_contiguous = true;
  for (const Extent& extent : tensor.extents) {
    all_contiguous = all_contiguous && is_contiguous(extent.box, tensor.shape);
    for (std::size_t d = 0; d < chunk.size(); ++d) {
      if (extent.box.count[d] != chunk[d] || extent.box.start[d] % chunk[d] != 0) return;
    }
  }
  if (all_contiguous) return;
  tensor.layout = Layout::chunked;
  tensor.chunk = chunk;
}

std::vector<TensorEntry> plan_save(std::span<const std::vector<TensorView>> pieces_by_rank) {
  std::vector<Gathering> all;
  std::unordered_map<std::string, std::size_t> by_name;
  for (std::size_t r = 0; r < pieces_by_rank.size(); ++r) {
    for (const TensorView& piece : pieces_by_rank[r]) {
      const int rank = static_cast<int>(r);
      const auto [it, is_new] = by_name.try_emplace(piece.name, all.size());
      if (is_new) {
        names::check_tensor_name(piece.name);
        Gathering& gathering = all.emplace_back();
        gathering.entry.name = piece.name;
        gathering.entry.dtype = piece.dtype;
        gathering.entry.shape = piece.placement.global_shape;
        gathering.entry.placement = piece.placement.kind;
        gathering.first_rank = rank;
      }
      check_agreement(all[it->second], piece, rank);
      add_piece(all[it->second], piece, rank);
    }
  }
  assign_writers(all, pieces_by_rank.size());
  std::vector<TensorEntry> tensors;
  tensors.reserve(all.size());
  for (Gathering& gathering : all) {
    check_tiling(gathering.entry);
    choose_layout(gathering.entry);
    tensors.push_back(std::move(gathering.entry));
  }
  check_nesting(tensors);
  return tensors;
}

std::uint64_t structure_hash(const std::vector<TensorEntry>& tensors) {
  std::vector<const TensorEntry*> sorted;
  for (const TensorEntry& tensor : tensors) sorted.push_back(&tensor);
  std::sort(sorted.begin(), sorted.end(),
            [](const TensorEntry* a, const TensorEntry* b) { return a->name < b->name; });
  Digester digester;
  for (const TensorEntry* tensor : sorted) {
    digester.update(tensor->name);
    digester.update(static_cast<std::uint64_t>(tensor->dtype));
    digester.update(static_cast<std::uint64_t>(tensor->shape.size()));
    for (const std::uint64_t extent : tensor->shape) digester.update(extent);
  }
  return digester.value();
}

std::uint64_t pieces_hash(std::span<const TensorView> pieces) {
  ByteWriter out;
  put_pieces(out, pieces);
  return digest_of(out.take());
}

}  // namespace cairn::detail
