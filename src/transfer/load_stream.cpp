#include "transfer/load_stream.hpp"

#include <algorithm>
#include <tuple>

#include "base/throw.hpp"
#include "plan/region.hpp"
#include "plan/slices.hpp"
#include "transfer/cast.hpp"
#include "transfer/reader.hpp"

namespace cairn::detail {
namespace {

// A collective read through MPI-IO costs an open of the file each time.
constexpr std::uint64_t kCollectiveWindowBytes = 32 << 20;

const TensorEntry& tensor_of(const Manifest& manifest, const LoadItem& item) {
  return manifest.tensors[item.tensor];
}

/// Where each slice of a window is read to in `buffer`.
std::vector<std::byte*> places_of(const Manifest& manifest, std::span<const LoadItem> items,
                                  const Window& window, std::vector<std::byte>& buffer) {
  buffer.resize(window.bytes);
  std::vector<std::byte*> places;
  places.reserve(window.slices.size());
  std::uint64_t at = 0;
  for (const Slice& slice : window.slices) {
    places.push_back(buffer.data() + at);
    at += slice.elements * item_bytes(tensor_of(manifest, items[slice.item]).dtype);
  }
  return places;
}

/// Converts the bytes of a slice to where they belong. Errors: mismatch (an integer that does not
/// fit).
void convert(const Manifest& manifest, std::span<const LoadItem> items, const Slice& slice,
             const std::byte* bytes) {
  const LoadItem& item = items[slice.item];
  const TensorEntry& tensor = tensor_of(manifest, item);
  try {
    cast_elements(tensor.dtype, bytes, item.to, item.data + slice.first * item_bytes(item.to),
                  slice.elements);
  } catch (const Error& error) {
    fail(error.code(), "tensor '{}': {}", tensor.name, error.what());
  }
}

}  // namespace

void sort_by_place(const Manifest& manifest, std::vector<LoadItem>& items) {
  const auto place = [&](const LoadItem& item) {
    const auto& extents = tensor_of(manifest, item).extents;
    const auto file = extents.empty() ? 0U : extents.front().file;
    const auto offset = extents.empty() ? 0U : extents.front().offset;
    const bool flat = item.piece->kind == Placement::Kind::flat;
    return std::tuple(file, offset, item.tensor, flat);
  };
  const auto before = [&](const LoadItem& a, const LoadItem& b) {
    const auto at_a = place(a);
    const auto at_b = place(b);
    if (at_a != at_b) return at_a < at_b;
    const Box& x = a.piece->box;
    const Box& y = b.piece->box;
    return std::tie(x.start, x.count) < std::tie(y.start, y.count);
  };
  if (!std::is_sorted(items.begin(), items.end(), before)) {
    std::stable_sort(items.begin(), items.end(), before);
  }
}

std::vector<Window> cut_windows(const Manifest& manifest, std::span<const LoadItem> items,
                                std::uint64_t window_bytes) {
  std::vector<Window> windows;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::uint64_t item = item_bytes(tensor_of(manifest, items[i]).dtype);
    std::uint64_t first = 0;
    for (const Box& box : region_of(*items[i].piece, item).boxes) {
      for (Box& part : slices_of(box, window_bytes / item)) {
        const std::uint64_t elements = part.elements();
        if (windows.empty() || windows.back().bytes + elements * item > window_bytes) {
          windows.emplace_back();
        }
        windows.back().bytes += elements * item;
        windows.back().slices.push_back({i, std::move(part), first, elements});
        first += elements;
      }
    }
  }
  return windows;
}

std::uint64_t convert_windows(const Manifest& manifest, std::span<const LoadItem> items) {
  Reader reader(manifest);
  std::vector<std::byte> buffer;
  for (const Window& window : cut_windows(manifest, items, kWindowBytes)) {
    const auto places = places_of(manifest, items, window, buffer);
    for (std::size_t s = 0; s < window.slices.size(); ++s) {
      const TensorEntry& tensor = tensor_of(manifest, items[window.slices[s].item]);
      reader.add(tensor, Placement::block(tensor.shape, window.slices[s].box), places[s]);
    }
    reader.flush();
    for (std::size_t s = 0; s < window.slices.size(); ++s) {
      convert(manifest, items, window.slices[s], places[s]);
    }
  }
  return reader.bytes_read();
}

std::uint64_t convert_windows(const Comm& comm, Engine& engine, const Manifest& manifest,
                              std::span<const LoadItem> items) {
  std::vector<Window> windows;
  std::uint64_t rounds[1] = {0};
  agree(comm, "load: move", [&] {
    windows = cut_windows(manifest, items, kCollectiveWindowBytes);
    rounds[0] = windows.size();
  });
  comm.all_reduce_max(std::span<std::uint64_t>(rounds));
  std::vector<std::byte> buffer;
  std::vector<std::byte*> places;
  std::vector<Placement> pieces;
  std::vector<ReadItem> reads;
  std::uint64_t bytes = 0;
  for (std::uint64_t round = 0; round < rounds[0]; ++round) {
    agree(comm, "load: move", [&] {
      reads.clear();
      pieces.clear();
      if (round >= windows.size()) return;
      const Window& window = windows[round];
      places = places_of(manifest, items, window, buffer);
      pieces.reserve(window.slices.size());
      for (std::size_t s = 0; s < window.slices.size(); ++s) {
        const std::size_t tensor = items[window.slices[s].item].tensor;
        pieces.push_back(Placement::block(manifest.tensors[tensor].shape, window.slices[s].box));
        reads.push_back({tensor, &pieces.back(), places[s], {}});
      }
    });
    bytes += engine.read(comm, manifest, reads);
    agree(comm, "load: move", [&] {
      for (std::size_t s = 0; s < reads.size(); ++s) {
        convert(manifest, items, windows[round].slices[s], places[s]);
      }
    });
  }
  return bytes;
}

std::uint64_t check_integers(const Manifest& manifest, std::span<const LoadItem> items) {
  Reader reader(manifest);
  std::vector<std::byte> buffer;
  for (const Window& window : cut_windows(manifest, items, kWindowBytes)) {
    for (const Slice& slice : window.slices) {
      const LoadItem& item = items[slice.item];
      const TensorEntry& tensor = tensor_of(manifest, item);
      if (!may_not_fit(tensor.dtype, item.to)) continue;
      buffer.resize(slice.elements * item_bytes(tensor.dtype));
      reader.read(tensor, Placement::block(tensor.shape, slice.box), buffer.data());
      if (const auto misfit = find_misfit(tensor.dtype, item.to, buffer)) {
        fail(Errc::mismatch,
             "tensor '{}' of '{}' is {} and holds {} (element {} of this rank's piece), which {} "
             "cannot hold; nothing was loaded",
             tensor.name, manifest.path().string(), to_string(tensor.dtype), misfit->value,
             slice.first + misfit->element, to_string(item.to));
      }
    }
  }
  return reader.bytes_read();
}

}  // namespace cairn::detail
