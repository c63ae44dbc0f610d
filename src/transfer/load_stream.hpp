#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cairn/manifest.hpp"
#include "transfer/engine.hpp"

namespace cairn::detail {

// What a load looks at or converts goes window by window, so that no second copy of the model is
// ever in memory.

/// A piece of a tensor that is wanted in this rank's memory, as elements of `to`.
struct LoadItem {
  std::size_t tensor = 0;  ///< position in Manifest::tensors
  const Placement* piece = nullptr;
  std::byte* data = nullptr;
  DType to = DType::f32;
};

/// A run of an item's dense elements that is one box of the tensor.
struct Slice {
  std::size_t item = 0;  ///< position in the items
  Box box;
  std::uint64_t first = 0;  ///< element of the item
  std::uint64_t elements = 0;
};

/// Slices whose stored bytes together are about as many as were asked for; never more, unless one
/// element is.
struct Window {
  std::vector<Slice> slices;
  std::uint64_t bytes = 0;
};

/// Bytes of a window: what stays in a processor's cache between the read and the look at it.
inline constexpr std::uint64_t kWindowBytes = 4 << 20;

/// Sorts the items by where they lie in the file. The order depends on the pieces alone. Local.
void sort_by_place(const Manifest& manifest, std::vector<LoadItem>& items);

/// Cuts the items, one behind the other, into windows. Local.
std::vector<Window> cut_windows(const Manifest& manifest, std::span<const LoadItem> items,
                                std::uint64_t window_bytes);

/// Reads all windows of `items` and converts them to their places. Local. Returns the number of
/// bytes read. Errors: those of Reader; mismatch (an integer that does not fit).
std::uint64_t convert_windows(const Manifest& manifest, std::span<const LoadItem> items);

/// The same through an engine whose reads are collective. Collective; `items` may differ.
std::uint64_t convert_windows(const Comm& comm, Engine& engine, const Manifest& manifest,
                              std::span<const LoadItem> items);

/// Looks at the integers of `items` and changes nothing. Local. Returns the number of bytes that it
/// read. Errors: mismatch, naming tensor and value, where one does not fit; those of Reader.
std::uint64_t check_integers(const Manifest& manifest, std::span<const LoadItem> items);

}  // namespace cairn::detail
