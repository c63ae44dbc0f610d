#include "transfer/stored_chunks.hpp"

#include <algorithm>
#include <utility>

#include "base/throw.hpp"
#include "mpi/time_limit.hpp"

namespace cairn::detail {

const std::vector<std::byte>& StoredChunks::read(const File& file, std::uint32_t number,
                                                 const TensorEntry& tensor,
                                                 std::uint64_t position) {
  const StoredChunk& chunk = tensor.stored.at(position);
  const std::size_t item = item_bytes(tensor.dtype);
  const std::uint64_t bytes = element_count(tensor.chunk) * item;
  // Whoever made the index may have given one place to two tensors.
  const auto known = std::find_if(kept_.begin(), kept_.end(), [&](const Kept& kept) {
    return kept.file == number && kept.chunk == chunk && kept.bytes.size() == bytes &&
           kept.item == item && kept.filters == tensor.filters;
  });
  if (known != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, known);
    return kept_.front().bytes;
  }
  // Before the new one is read, so that there is never more; its memory serves the new one.
  Kept next;
  while (!kept_.empty() && kept_bytes_ + bytes > most_) {
    kept_bytes_ -= kept_.back().bytes.size();
    next.bytes = std::move(kept_.back().bytes);
    kept_.pop_back();
  }
  next.file = number;
  next.chunk = chunk;
  next.item = item;
  next.filters = tensor.filters;
  fill(file, tensor, chunk, next.bytes);
  ++reads_;
  kept_bytes_ += next.bytes.size();
  kept_.push_front(std::move(next));
  return kept_.front().bytes;
}

void StoredChunks::fill(const File& file, const TensorEntry& tensor, const StoredChunk& chunk,
                        std::vector<std::byte>& out) {
  const std::size_t item = item_bytes(tensor.dtype);
  const std::uint64_t bytes = element_count(tensor.chunk) * item;
  // Deflate makes nothing much longer: more would be another file's index.
  if (chunk.bytes == 0 || chunk.bytes > bytes + bytes / 64 + 1024) {
    fail(Errc::corrupt, "a chunk of tensor '{}' is stored in {} bytes instead of at most {}",
         tensor.name, chunk.bytes, bytes);
  }
  check_time_limit();
  stored_.resize(chunk.bytes);
  file.read_at(chunk.offset, stored_);
  bytes_read_ += stored_.size();
  const bool shuffles = (tensor.filters & kShuffled) != 0;
  const bool shuffled = shuffles && (chunk.skipped & 1) == 0;
  const bool deflated = (tensor.filters & kDeflated) != 0 && (chunk.skipped >> shuffles & 1) == 0;
  std::vector<std::byte>& plain = shuffled ? shuffled_ : out;
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
    out.resize(bytes);
    unshuffle(shuffled_, item, out);
  }
}

}  // namespace cairn::detail
