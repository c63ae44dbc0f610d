#include "transfer/stored_chunks.hpp"

#include <utility>

#include "base/throw.hpp"
#include "mpi/time_limit.hpp"

namespace cairn::detail {

const std::vector<std::byte>& StoredChunks::read(const TensorEntry& tensor,
                                                 std::uint64_t position) {
  const StoredChunk& chunk = tensor.stored.at(position);
  if (chunk == last_ && chunk.bytes != 0) return bytes_;
  last_ = {};
  const std::size_t item = item_bytes(tensor.dtype);
  const std::uint64_t bytes = element_count(tensor.chunk) * item;
  // Deflate makes nothing much longer: more would be another file's index.
  if (chunk.bytes == 0 || chunk.bytes > bytes + bytes / 64 + 1024) {
    fail(Errc::corrupt, "a chunk of tensor '{}' is stored in {} bytes instead of at most {}",
         tensor.name, chunk.bytes, bytes);
  }
  check_time_limit();
  stored_.resize(chunk.bytes);
  file_.read_at(chunk.offset, stored_);
  const bool shuffles = (tensor.filters & kShuffled) != 0;
  const bool shuffled = shuffles && (chunk.skipped & 1) == 0;
  const bool deflated = (tensor.filters & kDeflated) != 0 && (chunk.skipped >> shuffles & 1) == 0;
  std::vector<std::byte>& plain = shuffled ? shuffled_ : bytes_;
  if (deflated) {
    plain.resize(bytes);
    inflater_.inflate(stored_, plain);
  } else {
    std::swap(plain, stored_);
    if (plain.size() != bytes) {
      fail(Errc::corrupt, "a chunk of tensor '{}' has {} bytes instead of {}", tensor.name,
           plain.size(), bytes);
    }
  }
  if (shuffled) {
    bytes_.resize(bytes);
    unshuffle(shuffled_, item, bytes_);
  }
  last_ = chunk;
  return bytes_;
}

}  // namespace cairn::detail
