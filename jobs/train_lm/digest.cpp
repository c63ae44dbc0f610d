#include "digest.hpp"

#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "cairn/dtype.hpp"
#include "cairn/error.hpp"

namespace train_lm {
namespace {

using Bytes = std::vector<std::byte>;
using Hash = std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)>;

/// A piece as it travels: start and count per dimension of its box, then its values.
Bytes pack(const cairn::TensorView& piece) {
  const cairn::Box& box = piece.placement.box;
  const std::size_t shape_bytes = box.start.size() * sizeof(std::uint64_t);
  Bytes message(2 * shape_bytes + piece.bytes());
  const auto put = [&](std::size_t at, const void* from, std::size_t bytes) {
    if (bytes != 0) std::memcpy(message.data() + at, from, bytes);
  };
  put(0, box.start.data(), shape_bytes);
  put(shape_bytes, box.count.data(), shape_bytes);
  put(2 * shape_bytes, piece.data, piece.bytes());
  return message;
}

/// Copies a dense box into the row-major tensor of `shape`, row by row.
void paste(std::span<std::byte> whole, const cairn::Shape& shape, const cairn::Box& box,
           const std::byte* values, std::size_t item) {
  if (box.elements() == 0) return;
  const std::size_t dims = shape.size();
  const std::size_t row_bytes = (dims == 0 ? 1 : box.count[dims - 1]) * item;
  for (std::uint64_t row = 0; row * row_bytes < box.elements() * item; ++row) {
    std::uint64_t rest = row;
    std::uint64_t offset = dims == 0 ? 0 : box.start[dims - 1];
    std::uint64_t stride = dims == 0 ? 1 : shape[dims - 1];
    for (std::size_t d = dims; d-- > 1;) {
      offset += (box.start[d - 1] + rest % box.count[d - 1]) * stride;
      rest /= box.count[d - 1];
      stride *= shape[d - 1];
    }
    std::memcpy(whole.data() + offset * item, values + row * row_bytes, row_bytes);
  }
}

/// All ranks' pieces of one tensor, put together on rank 0.
Bytes assemble(const cairn::Comm& comm, const cairn::TensorView& piece) {
  using Kind = cairn::Placement::Kind;
  const bool whole_here = piece.placement.kind == Kind::replicated;
  const Bytes message = whole_here && !comm.is_root() ? Bytes{} : pack(piece);
  const std::vector<Bytes> messages = comm.gather(message);
  const std::size_t item = cairn::item_bytes(piece.dtype);
  const std::uint64_t elements = cairn::element_count(piece.placement.global_shape);
  const cairn::Shape shape =
      piece.placement.kind == Kind::flat ? cairn::Shape{elements} : piece.placement.global_shape;
  const std::size_t shape_bytes = shape.size() * sizeof(std::uint64_t);
  Bytes whole(comm.is_root() ? elements * item : 0);
  for (const Bytes& from : messages) {
    if (from.empty()) continue;
    cairn::Box box{cairn::Shape(shape.size()), cairn::Shape(shape.size())};
    if (shape_bytes != 0) {
      std::memcpy(box.start.data(), from.data(), shape_bytes);
      std::memcpy(box.count.data(), from.data() + shape_bytes, shape_bytes);
    }
    paste(whole, shape, box, from.data() + 2 * shape_bytes, item);
  }
  return whole;
}

void update(const Hash& hash, const void* data, std::size_t bytes) {
  if (bytes != 0) XXH3_128bits_update(hash.get(), data, bytes);
}

}  // namespace

std::string digest_of(const cairn::Comm& comm, std::vector<cairn::TensorView> pieces) {
  std::ranges::sort(pieces, {}, &cairn::TensorView::name);
  const Hash hash(XXH3_createState(), &XXH3_freeState);
  if (!hash) throw cairn::Error(cairn::Errc::internal, "no memory for a digest");
  XXH3_128bits_reset(hash.get());
  for (const cairn::TensorView& piece : pieces) {
    const Bytes whole = assemble(comm, piece);
    const std::string header =
        fmt::format("{}\n{}\n{}\n", piece.name, cairn::to_string(piece.dtype),
                    cairn::to_string(piece.placement.global_shape));
    update(hash, header.data(), header.size());
    update(hash, whole.data(), whole.size());
  }
  if (!comm.is_root()) return {};
  const XXH128_hash_t value = XXH3_128bits_digest(hash.get());
  return fmt::format("{:016x}{:016x}", value.high64, value.low64);
}

}  // namespace train_lm
