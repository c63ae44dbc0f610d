#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/inflate.hpp"
#include "cairn/manifest.hpp"
#include "os/file.hpp"

namespace cairn::detail {

/// Reads chunks of tensors with filters from one file and undoes the filters; the last chunk is
/// kept, since neighbours are asked for one after the other. Local. Lifetime: that of `file`.
class StoredChunks {
 public:
  explicit StoredChunks(const File& file) : file_(file) {}
  /// The dense bytes of chunk `position`. Lifetime: until the next call. Errors: corrupt, io.
  const std::vector<std::byte>& read(const TensorEntry& tensor, std::uint64_t position);

 private:
  const File& file_;
  Inflater inflater_;
  StoredChunk last_;  // without bytes: none
  std::vector<std::byte> stored_;
  std::vector<std::byte> shuffled_;
  std::vector<std::byte> bytes_;
};

}  // namespace cairn::detail
