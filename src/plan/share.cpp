#include "plan/share.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "plan/region.hpp"

namespace cairn::detail {
namespace {

constexpr std::uint64_t kLeastCutBytes = 64 << 10;
constexpr std::uint64_t kCutStep = 4096;  // divisible by every item size

/// One extent of a group's.
struct Member {
  std::size_t extent = 0;  ///< its number among those of all tensors
  std::uint64_t bytes = 0;
};

/// A run of an extent's dense bytes and who writes it.
struct Cut {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  int writer = -1;
};

/// How many of `bytes` each of `ranks` takes, so that their loads become as equal as they can;
/// adds them to the loads.
std::vector<std::uint64_t> level(std::uint64_t bytes, const std::vector<int>& ranks,
                                 std::vector<std::uint64_t>& loads) {
  std::vector<std::size_t> order(ranks.size());
  std::iota(order.begin(), order.end(), 0);
  const auto load_of = [&](std::size_t position) -> std::uint64_t& {
    return loads[static_cast<std::size_t>(ranks[position])];
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return load_of(a) < load_of(b); });
  // The n lightest share; n as large as it can be without lifting one above the common height.
  std::uint64_t sum = bytes;
  std::size_t n = 0;
  while (n < order.size() && load_of(order[n]) * n <= sum) sum += load_of(order[n++]);
  std::vector<std::uint64_t> shares(ranks.size(), 0);
  for (std::size_t i = 0; i < n; ++i) {
    std::uint64_t& load = load_of(order[i]);
    const std::uint64_t height = sum / n + (i < sum % n ? 1 : 0);
    shares[order[i]] = height - load;
    load = height;
  }
  return shares;
}

/// Where a cut at byte `wanted` of an extent is made.
std::uint64_t place_cut(std::uint64_t wanted, std::uint64_t bytes) {
  if (bytes < kLeastCutBytes) return 2 * wanted < bytes ? 0 : bytes;
  return std::min((wanted + kCutStep / 2) / kCutStep * kCutStep, bytes);
}

/// Cuts the members, laid end to end, at the ranks' shares. `found(member, cut)` for each part.
template <class Found>
void cut_members(const std::vector<Member>& members, const std::vector<int>& ranks,
                 const std::vector<std::uint64_t>& shares, Found&& found) {
  std::size_t r = 0;
  std::uint64_t share_end = shares[0];  // in the members laid end to end
  std::uint64_t at = 0;
  for (const Member& member : members) {
    std::uint64_t start = 0;
    while (start < member.bytes) {
      const bool last = r + 1 == ranks.size();
      const std::uint64_t end = last || share_end >= at + member.bytes
                                    ? member.bytes
                                    : place_cut(share_end - std::min(share_end, at), member.bytes);
      if (end > start) found(member, Cut{start, end, ranks[r]});
      start = std::max(start, end);
      if (start < member.bytes) share_end += shares[++r];
    }
    at += member.bytes;
  }
}

/// The part of an extent that a cut is, as extents of their own.
void append_parts(const Extent& extent, const Cut& cut, std::uint64_t item,
                  std::vector<Extent>& parts) {
  const std::uint64_t start = cut.start / item;
  const std::uint64_t count = (cut.end - cut.start) / item;
  const auto append = [&](Box box) {
    Extent part = extent;
    part.box = std::move(box);
    part.writer = cut.writer;
    parts.push_back(std::move(part));
  };
  if (count == extent.box.elements()) return append(extent.box);
  if (extent.flat) return append(Box{{extent.box.start[0] + start}, {count}});
  for (Box& box : flat_to_boxes(extent.box.count, start, count)) {
    for (std::size_t d = 0; d < box.start.size(); ++d) box.start[d] += extent.box.start[d];
    append(std::move(box));
  }
}

/// The order in which groups choose: small ones first, because they have the least choice.
std::vector<std::size_t> order_of(std::span<const std::vector<int>> groups) {
  std::vector<std::size_t> order(groups.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    if (groups[a].size() != groups[b].size()) return groups[a].size() < groups[b].size();
    return groups[a] < groups[b];
  });
  return order;
}

}  // namespace

void share_extents(std::span<HeldTensor> tensors, std::span<const std::vector<int>> groups,
                   std::size_t ranks) {
  std::vector<std::vector<Member>> members(groups.size());
  std::vector<std::uint64_t> group_bytes(groups.size(), 0);
  std::size_t extents = 0;
  for (const HeldTensor& tensor : tensors) {
    const TensorEntry& entry = tensor.entry;
    for (std::size_t e = 0; e < entry.extents.size(); ++e) {
      const std::uint64_t bytes = entry.extents[e].box.elements() * item_bytes(entry.dtype);
      members[tensor.group[e]].push_back({extents++, bytes});
      group_bytes[tensor.group[e]] += bytes;
    }
  }
  std::vector<std::uint64_t> loads(ranks, 0);
  std::vector<Cut> cuts;  // those of one extent together
  std::vector<std::pair<std::size_t, std::size_t>> cuts_of(extents);  // the first, how many
  for (const std::size_t g : order_of(groups)) {
    const auto shares = level(group_bytes[g], groups[g], loads);
    cut_members(members[g], groups[g], shares, [&](const Member& member, const Cut& cut) {
      auto& [first, count] = cuts_of[member.extent];
      if (count++ == 0) first = cuts.size();
      cuts.push_back(cut);
    });
  }
  std::size_t number = 0;
  for (HeldTensor& tensor : tensors) {
    TensorEntry& entry = tensor.entry;
    std::vector<Extent> parts;
    parts.reserve(entry.extents.size());
    for (const Extent& extent : entry.extents) {
      const auto [first, count] = cuts_of[number++];
      for (const Cut& cut : std::span(cuts).subspan(first, count)) {
        append_parts(extent, cut, item_bytes(entry.dtype), parts);
      }
    }
    entry.extents = std::move(parts);
  }
}

}  // namespace cairn::detail
