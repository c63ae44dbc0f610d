#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cairn/dtype.hpp"
#include "cairn/shape.hpp"
#include "formats/torch/tree.hpp"
#include "formats/torch/zip_writer.hpp"

namespace cairn::detail::torch {

/// A run of elements that is to be written.
struct NewStorage {
  DType dtype = DType::f32;
  std::uint64_t bytes = 0;
};

/// A view of one, counted in elements.
struct NewTensor {
  std::size_t storage = 0;
  std::uint64_t first = 0;
  Shape shape;
  Shape strides;
};

/// A tensor that is small, and at hand.
struct NewArray {
  DType dtype = DType::f32;
  Shape shape;
  std::string bytes;
};

/// What a file of PyTorch's is to hold. The tree calls tensors and arrays by their positions here.
struct NewFile {
  Tree tree;
  std::vector<NewStorage> storages;
  std::vector<NewTensor> tensors;
  std::vector<NewArray> arrays;
};

/// A file whose parts have their places.
struct TorchLayout {
  ZipLayout zip;
  std::vector<std::uint64_t> offsets;  ///< in the file, by storage
  std::vector<std::size_t> members;    ///< in the archive, by storage
  /// Of each member its bytes and where they start, but for storages.
  std::vector<std::pair<std::uint64_t, std::string>> contents;
};

/// Lays out a zip file as torch.save writes it, with a pickle that every PyTorch since 1.13 reads
/// with `weights_only`; types of later releases need those. Local. Errors: unsupported.
TorchLayout lay_out_torch(const NewFile& file);
/// All bytes of the file but the storages, in ascending order; `crcs`: CRC-32 by storage. Local.
std::vector<ZipLayout::Piece> other_bytes(const TorchLayout& layout,
                                          std::span<const std::uint32_t> crcs);
/// Row-major strides, in elements. Local.
Shape dense_strides(const Shape& shape);

}  // namespace cairn::detail::torch
