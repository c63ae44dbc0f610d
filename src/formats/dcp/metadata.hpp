#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cairn/manifest.hpp"

namespace cairn::detail::dcp {

/// Where one saved thing lies: a file that torch.save wrote, inside a data file.
struct Stored {
  std::string file;  ///< relative to the directory
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

struct TensorMetadata {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::vector<PathKey> path;
  std::vector<Box> boxes;      ///< they tile the tensor
  std::vector<Stored> stored;  ///< of each box
};

/// What `.metadata` says.
struct Metadata {
  std::vector<TensorMetadata> tensors;
  /// Other values than tensors, by name: their own pickles, which nobody needs to open.
  std::vector<std::string> values;
  std::string version;  ///< of the format, where it is noted
};

/// Reads the pickle `.metadata`. Boxes without elements are left out. Local. Errors: corrupt (boxes
/// that do not tile their tensor, a box that is stored nowhere, ...); unsupported; unsafe (a file
/// outside of the directory, a pickle that would execute something).
Metadata read_metadata(std::vector<std::byte> pickle);

}  // namespace cairn::detail::dcp
