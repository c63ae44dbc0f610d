#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>

#include "cairn/manifest.hpp"

namespace cairn::detail {

class ForeignDataset;

/// Reads tensors of a rewritten container through the HDF5 library. One process, its own file.
/// Local.
class DatasetReader {
 public:
  /// Errors: corrupt.
  explicit DatasetReader(const std::filesystem::path& path);
  ~DatasetReader();
  DatasetReader(const DatasetReader&) = delete;
  DatasetReader& operator=(const DatasetReader&) = delete;

  /// Fills `out` with `box` of the dataset in dense row-major order. Errors: corrupt; unsafe, as
  /// ForeignDataset.
  void read(const TensorEntry& tensor, const Box& box, std::byte* out);

 private:
  std::filesystem::path path_;
  long long file_ = -1;
  std::string name_;                         // of the dataset
  std::unique_ptr<ForeignDataset> dataset_;  // that was read last: windows ask for one in turn
};

}  // namespace cairn::detail
