#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <vector>

#include "base/inflate.hpp"
#include "cairn/manifest.hpp"
#include "os/file.hpp"

namespace cairn::detail {

/// Reads chunks of tensors with filters and undoes the filters. Chunks that were asked for lately
/// are kept, since windows over a tensor ask for the same ones again and again. Local.
class StoredChunks {
 public:
  /// As many bytes of chunks are kept, or one chunk where that is larger. A window over all columns
  /// of a tensor that n ranks held by columns needs n chunks of about 1 MiB at a time; and a load
  /// is to take at most 64 MiB besides the tensors, buffers of reads included.
  static constexpr std::uint64_t kKeptBytes = 32 << 20;

  explicit StoredChunks(std::uint64_t kept_bytes = kKeptBytes) : most_(kept_bytes) {}
  /// The dense bytes of chunk `position`, from `file`, which is file `number` of the manifest.
  /// Lifetime: until the next call. Errors: corrupt, io.
  const std::vector<std::byte>& read(const File& file, std::uint32_t number,
                                     const TensorEntry& tensor, std::uint64_t position);
  /// Chunks that were read from files so far.
  std::uint64_t reads() const { return reads_; }
  /// Their bytes, as stored.
  std::uint64_t bytes_read() const { return bytes_read_; }

 private:
  struct Kept {
    std::uint32_t file = 0;
    StoredChunk chunk;
    std::size_t item = 0;
    std::uint8_t filters = 0;
    std::vector<std::byte> bytes;
  };
  void fill(const File& file, const TensorEntry& tensor, const StoredChunk& chunk,
            std::vector<std::byte>& out);

  std::uint64_t most_;
  std::uint64_t reads_ = 0;
  std::uint64_t bytes_read_ = 0;
  std::list<Kept> kept_;  // the one asked for last first
  std::uint64_t kept_bytes_ = 0;
  Inflater inflater_;
  std::vector<std::byte> stored_;
  std::vector<std::byte> shuffled_;
};

}  // namespace cairn::detail
