#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/bytes.hpp"
#include "cairn/manifest.hpp"
#include "cairn/tensor_view.hpp"

namespace cairn::detail {

void put_box(ByteWriter& out, const Box& box);
/// Errors: corrupt.
Box get_box(ByteReader& in);

/// The form in which a Manifest travels between ranks of one job. Not a file format.
std::vector<std::byte> encode(const Manifest& manifest);
/// Errors: corrupt.
Manifest decode_manifest(std::span<const std::byte> bytes);

/// The same for one rank's pieces of tensors, without their bytes.
void put_pieces(ByteWriter& out, std::span<const TensorView> pieces);
std::vector<TensorView> get_pieces(ByteReader& in);

}  // namespace cairn::detail
