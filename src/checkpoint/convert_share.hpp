#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "checkpoint/convert.hpp"
#include "transfer/copy_writer.hpp"

namespace cairn::detail {

/// A file on its way that is no container: its tensors have their places.
struct NewTensors {
  std::filesystem::path partial;
  std::uint64_t nonce = 0;               ///< the file's first 8 bytes until it is whole
  std::span<const TensorEntry> tensors;  ///< contiguous, ascending by offset
  std::span<const std::size_t> sources;  ///< of each: the tensor of the source that fills it
  bool crc32 = false;                    ///< wanted in the reports
};

/// This rank's elements of a file's tensors: a run of its bytes, about as long as that of others.
struct Share {
  std::vector<Extent> extents;
  std::vector<std::size_t> tensors;  ///< of each: position in the file's
  std::uint64_t bytes = 0;
};

/// Local.
Share share_of(std::span<const TensorEntry> tensors, int size, int rank);

/// Copies a rank's share into the file that `make_file` makes on rank 0, reads it back, calls
/// `before_settle` (collective) and settles it; reports on its extents. `progress` is told the
/// bytes of this file so far. Collective. Errors: those of CopyWriter, `make_file` and
/// `before_settle`.
std::vector<PartReport> copy_share(const Comm& comm, const Manifest& source, const NewTensors& file,
                                   const Share& share, const ConvertOptions& options,
                                   const std::function<void(std::uint64_t)>& progress,
                                   const std::function<void()>& make_file,
                                   const std::function<void()>& before_settle);

}  // namespace cairn::detail
