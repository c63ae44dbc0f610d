#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/bytes.hpp"
#include "cairn/manifest.hpp"
#include "cairn/tensor_view.hpp"

namespace cairn::detail {

void put_shape(ByteWriter& out, const Shape& shape);
void put_box(ByteWriter& out, const Box& box);
/// Errors: corrupt.
Box get_box(ByteReader& in);
/// `count` 8-byte numbers. Errors: corrupt.
std::vector<std::uint64_t> get_numbers(ByteReader& in, std::uint64_t count);

void put_extent(ByteWriter& out, const Extent& extent);
/// Errors: corrupt.
Extent get_extent(ByteReader& in);
/// A tensor without its extents.
void put_tensor_head(ByteWriter& out, const TensorEntry& tensor);
/// Errors: corrupt, unsupported.
TensorEntry get_tensor_head(ByteReader& in);

/// The form in which a Manifest travels between ranks of one job. Not a file format.
std::vector<std::byte> encode(const Manifest& manifest);
/// Errors: corrupt.
Manifest decode_manifest(std::span<const std::byte> bytes);

/// The same for one rank's pieces of tensors, without their bytes.
void put_pieces(ByteWriter& out, std::span<const TensorView> pieces);
std::vector<TensorView> get_pieces(ByteReader& in);

}  // namespace cairn::detail
