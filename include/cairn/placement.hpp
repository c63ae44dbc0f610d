#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "cairn/export.hpp"
#include "cairn/shape.hpp"

namespace cairn {

/// A rectangular part of a tensor: `start[d] <= index[d] < start[d] + count[d]`, in elements.
struct CAIRN_EXPORT Box {
  Shape start;
  Shape count;

  /// The box of the whole tensor. Local.
  static Box whole(const Shape& shape);
  /// Errors: unsupported, as element_count. Local.
  std::uint64_t elements() const { return element_count(count); }
  bool operator==(const Box&) const = default;
};

/// "[0:384, 0:3072]". Local.
CAIRN_EXPORT std::string to_string(const Box& box);

/// Where one rank's piece of a tensor lies in the global tensor.
///
/// - replicated: the piece is the whole tensor; other ranks hold equal copies;
/// - block: the piece is a box; equal boxes on several ranks are replicas, the distinct boxes tile
/// the tensor;
/// - flat: the piece is the element range `box` (1-D) of the tensor flattened in row-major order.
///
/// A rank may hold several pieces of one tensor, and pieces may be empty.
struct CAIRN_EXPORT Placement {
  enum class Kind : std::uint8_t { replicated = 0, block = 1, flat = 2 };

  Kind kind = Kind::replicated;
  Shape global_shape;
  Box box;

  /// The whole tensor. Local.
  static Placement replicated(Shape global_shape);
  /// Errors: usage when the box leaves the shape. Local.
  static Placement block(Shape global_shape, Box box);
  /// The balanced block `index` of `parts` along `dim`: the first `n % parts` blocks have one
  /// element more. Errors: usage when there is no such dimension or part. Local.
  static Placement split(Shape global_shape, std::size_t dim, int parts, int index);
  /// Errors: usage when the range leaves the tensor. Local.
  static Placement flat(Shape global_shape, std::uint64_t start, std::uint64_t count);
  /// The balanced flat range `index` of `parts`. Errors: usage when there is no such part. Local.
  static Placement flat_split(Shape global_shape, int parts, int index);

  /// Elements of the piece. Errors: unsupported, as element_count. Local.
  std::uint64_t elements() const { return box.elements(); }
  bool operator==(const Placement&) const = default;
};

/// "replicated", "block" or "flat". Local.
CAIRN_EXPORT std::string_view to_string(Placement::Kind kind);

/// Errors: usage, when the box has the wrong number of dimensions or leaves the shape, or a
/// replicated piece is not the whole tensor. Local.
CAIRN_EXPORT void check_placement(const Placement& placement);

/// Start and length of block `index` when `n` elements are split evenly into `parts`.
struct Range {
  std::uint64_t start = 0;
  std::uint64_t count = 0;
};
/// The first `n % parts` blocks have one element more. Errors: usage when there is no such part.
/// Local.
CAIRN_EXPORT Range balanced_range(std::uint64_t n, int parts, int index);

}  // namespace cairn
