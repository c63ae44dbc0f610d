#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/table_bytes.hpp"

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
  std::vector<PathKey> path;   ///< the name alone, where the file tells no other
  std::vector<Box> boxes;      ///< parts of the tensor
  std::vector<Stored> stored;  ///< of each box
};

/// A value that is no tensor.
struct ValueMetadata {
  std::string name;
  std::vector<PathKey> path;  ///< empty: a dict whose values lie at the root
  Stored stored;
  bool transformed = false;  ///< compressed, or the like
};

/// What `.metadata` says.
struct Metadata {
  std::vector<TensorMetadata> tensors;
  std::vector<ValueMetadata> values;
  std::set<std::string> globals;  ///< names of classes and functions
  std::string version;            ///< of the format, where it is noted
};

/// Reads the pickle `.metadata`. Boxes without elements are left out. Whether boxes tile their
/// tensors is not checked. `parts_bytes` counts tensors, boxes and values. Local. Errors: corrupt
/// (a box that is stored nowhere, ...); unsupported; unsafe (a file outside of the directory, a
/// pickle that would execute something, more than fits).
Metadata read_metadata(std::vector<std::byte> pickle, TableBytes& parts_bytes);

/// Checks that the boxes tile the tensor. Local. Errors: corrupt.
void check_boxes(const TensorMetadata& tensor);
/// The same as an answer. Local.
bool are_tiling(const TensorMetadata& tensor);
/// Checks that a name in a checkpoint's metadata is of a file in or below its directory. Local.
/// Errors: unsafe.
void check_file_name(std::string_view file);

}  // namespace cairn::detail::dcp
