#pragma once

#include <cstddef>
#include <string>

#include "cairn/dtype.hpp"
#include "cairn/placement.hpp"

namespace cairn {

/// One rank's piece of a tensor in memory: what is saved. The bytes are the piece in dense
/// row-major order; the caller keeps them alive and unchanged until the call that was given the
/// view returns.
///
/// Names are paths, `model/encoder.0.weight` or `optimizer/encoder.0.weight/exp_avg`: they become
/// the dataset's path in the container. Escape a component that holds `/` with escape_component.
struct TensorView {
  std::string name;
  DType dtype = DType::f32;
  Placement placement;
  const std::byte* data = nullptr;

  /// Bytes of the piece. Local.
  std::uint64_t bytes() const { return placement.elements() * item_bytes(dtype); }
  /// Whether both are the same piece, wherever their bytes are. Local.
  bool is_same_piece(const TensorView& other) const {
    return name == other.name && dtype == other.dtype && placement == other.placement;
  }
};

/// One rank's piece of a tensor in memory: what is loaded into.
struct MutableTensorView {
  std::string name;
  DType dtype = DType::f32;
  Placement placement;
  std::byte* data = nullptr;

  /// Bytes of the piece. Local.
  std::uint64_t bytes() const { return placement.elements() * item_bytes(dtype); }
};

/// One component of a tensor name: `%`, `/`, bytes below 0x20 and 0x7f become %XX; "." gives "%2E",
/// and "" gives "%", a lone percent sign. Local.
CAIRN_EXPORT std::string escape_component(std::string_view component);
/// Inverse of escape_component; text that is no escape stays as it is. Local.
CAIRN_EXPORT std::string unescape_component(std::string_view component);

}  // namespace cairn
