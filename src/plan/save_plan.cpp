#include "plan/save_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "base/bytes.hpp"
#include "base/digest.hpp"
#include "base/text.hpp"
#include "base/throw.hpp"
#include "manifest/codec.hpp"
#include "manifest/names.hpp"
#include "plan/region.hpp"
#include "plan/share.hpp"
#include "plan/tiling.hpp"

namespace cairn::detail {
namespace {

// HDF5 keeps a chunk's size in 32 bits; below 64 KiB a chunk's index entry costs more than rows do.
constexpr std::uint64_t kLargestChunkBytes = (std::uint64_t{1} << 32) - 1;
constexpr std::uint64_t kSmallestChunkBytes = 64 << 10;

/// A tensor while its pieces come in.
struct Gathering {
  HeldTensor tensor;
  int first_rank = 0;
};

/// The groups of ranks that hold the same pieces.
class Groups {
 public:
  explicit Groups(std::span<const RankReport> reports) {
    for (std::size_t rank = 0; rank < reports.size(); ++rank) {
      for (const std::uint64_t group : reports[rank].groups) {
        const auto [it, is_new] = position_.try_emplace(group, members_.size());
        if (is_new) members_.emplace_back();
        members_[it->second].push_back(static_cast<int>(rank));
      }
    }
  }
  std::size_t position(std::uint64_t group) const {
    const auto it = position_.find(group);
    if (it == position_.end()) fail(Errc::internal, "a piece is held by an unknown group of ranks");
    return it->second;
  }
  const std::vector<std::vector<int>>& members() const { return members_; }

 private:
  std::unordered_map<std::uint64_t, std::size_t> position_;
  std::vector<std::vector<int>> members_;
};

/// Errors: unsupported, where HDF5 has no dataset of that shape.
void check_shape(const TensorView& piece) {
  const Shape& shape = piece.placement.global_shape;
  if (shape.size() > kMostRank) {
    fail(Errc::unsupported, "tensor '{}' has {} dimensions; a container's tensors have at most {}",
         printable(piece.name), shape.size(), kMostRank);
  }
  for (const std::uint64_t extent : shape) {
    if (extent <= kMostExtent) continue;
    fail(Errc::unsupported, "tensor '{}' has a dimension of {}; a container's have at most {}",
         printable(piece.name), extent, kMostExtent);
  }
}

void check_agreement(const Gathering& known, const TensorView& piece, int rank) {
  const TensorEntry& entry = known.tensor.entry;
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

void add_piece(Gathering& gathering, const TensorView& piece, std::size_t group) {
  const Placement& placement = piece.placement;
  TensorEntry& entry = gathering.tensor.entry;
  if (entry.placement == Placement::Kind::replicated && placement.kind == Placement::Kind::block) {
    entry.placement = placement.kind;
  }
  if (placement.elements() == 0) return;
  Extent extent;
  extent.flat = placement.kind == Placement::Kind::flat;
  extent.box = placement.box;
  entry.extents.push_back(std::move(extent));
  gathering.tensor.group.push_back(group);
}

/// A dataset can't be a group at the same time: "model/a" beside "model/a/b".
void check_nesting(const std::vector<TensorEntry>& tensors) {
  std::unordered_set<std::string_view> names;
  for (const TensorEntry& tensor : tensors) names.insert(tensor.name);
  std::string_view parent;
  for (const TensorEntry& tensor : tensors) {
    const std::string_view name = tensor.name;
    const std::string_view above = name.substr(0, name.rfind('/') + 1);
    if (above == parent) continue;  // as the last one: looked at
    parent = above;
    for (auto at = name.find('/'); at != std::string_view::npos; at = name.find('/', at + 1)) {
      if (names.contains(name.substr(0, at))) {
        fail(Errc::usage,
             "tensor '{}' lies below tensor '{}'; a name can't be a tensor and a group", name,
             name.substr(0, at));
      }
    }
  }
}

/// Sorts by name what comes in sorted runs, as each rank's tensors mostly do, with few comparisons.
void sort_by_name(std::vector<Gathering*>& all) {
  const auto before = [](const Gathering* a, const Gathering* b) {
    return names::natural_less(a->tensor.entry.name, b->tensor.entry.name);
  };
  std::vector<std::ptrdiff_t> ends;  // of runs
  for (std::size_t i = 1; i < all.size(); ++i) {
    if (before(all[i], all[i - 1])) ends.push_back(static_cast<std::ptrdiff_t>(i));
  }
  ends.push_back(static_cast<std::ptrdiff_t>(all.size()));
  const auto first = all.begin();
  while (ends.size() > 1) {
    std::vector<std::ptrdiff_t> merged;
    for (std::size_t run = 0; run < ends.size(); run += 2) {
      merged.push_back(ends[std::min(run + 1, ends.size() - 1)]);
      const std::ptrdiff_t begin = run == 0 ? 0 : ends[run - 1];
      std::inplace_merge(first + begin, first + ends[run], first + merged.back(), before);
    }
    ends = std::move(merged);
  }
}

/// Every tensor once with its distinct pieces, in natural order of the names.
std::vector<HeldTensor> gather_tensors(std::span<const RankReport> reports, const Groups& groups) {
  std::vector<Gathering> all;
  std::unordered_map<std::string_view, std::size_t> by_name;
  for (const RankReport& report : reports) {
    for (std::size_t p = 0; p < report.pieces.size(); ++p) {
      const TensorView& piece = report.pieces[p];
      const std::size_t group = groups.position(report.piece_group.at(p));
      const int rank = groups.members()[group].front();
      const auto [it, is_new] = by_name.try_emplace(piece.name, all.size());
      if (is_new) {
        names::check_tensor_name(piece.name);
        check_shape(piece);
        Gathering& gathering = all.emplace_back();
        gathering.tensor.entry.name = piece.name;
        gathering.tensor.entry.dtype = piece.dtype;
        gathering.tensor.entry.shape = piece.placement.global_shape;
        gathering.tensor.entry.placement = piece.placement.kind;
        gathering.first_rank = rank;
      }
      check_agreement(all[it->second], piece, rank);
      add_piece(all[it->second], piece, group);
    }
  }
  std::vector<Gathering*> order;  // an entry is too large to be moved about
  order.reserve(all.size());
  for (Gathering& gathering : all) order.push_back(&gathering);
  sort_by_name(order);
  std::vector<HeldTensor> tensors;
  tensors.reserve(all.size());
  for (Gathering* gathering : order) tensors.push_back(std::move(gathering->tensor));
  return tensors;
}

}  // namespace

RankReport report_of(std::span<const TensorView> pieces, std::span<const Holding> holdings) {
  RankReport report;
  std::unordered_set<std::uint64_t> known;
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    const Holding& holding = holdings[p];
    if (known.insert(holding.group).second) report.groups.push_back(holding.group);
    if (!holding.describes) continue;
    report.pieces.push_back(pieces[p]);
    report.piece_group.push_back(holding.group);
  }
  return report;
}

std::vector<std::byte> encode_report(const RankReport& report) {
  ByteWriter out;
  out.put(static_cast<std::uint64_t>(report.groups.size()));
  out.put_raw(std::as_bytes(std::span(report.groups)));
  put_pieces(out, report.pieces);
  out.put_raw(std::as_bytes(std::span(report.piece_group)));
  return out.take();
}

RankReport decode_report(std::span<const std::byte> bytes) {
  ByteReader in(bytes, "a rank's list of tensors");
  RankReport report;
  const auto groups = in.get<std::uint64_t>();
  report.groups = get_numbers(in, groups);
  report.pieces = get_pieces(in);
  report.piece_group = get_numbers(in, report.pieces.size());
  return report;
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

std::vector<TensorEntry> plan_save(std::span<const RankReport> reports) {
  const Groups groups(reports);
  std::vector<HeldTensor> held = gather_tensors(reports, groups);
  for (HeldTensor& tensor : held) {
    check_tiling(tensor.entry);
    choose_layout(tensor.entry);
  }
  share_extents(held, groups.members(), reports.size());
  std::vector<TensorEntry> tensors;
  tensors.reserve(held.size());
  for (HeldTensor& tensor : held) tensors.push_back(std::move(tensor.entry));
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

}  // namespace cairn::detail
