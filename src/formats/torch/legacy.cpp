// magic number, protocol, facts about the system, object, keys of the storages: five pickles, one
// behind the other. Then, in the order of the keys, a count of elements (i64) and the elements.

#include "formats/torch/legacy.hpp"

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/throw.hpp"
#include "formats/pickle/parse.hpp"
#include "formats/pickle/scanner.hpp"

namespace cairn::detail::torch {
namespace {

using pickle::Graph;
using pickle::Kind;
using pickle::Ref;

constexpr std::string_view kMagic = "119547037146038801333356";  // 0x1950a86a20f9469cfc6c
constexpr std::uint64_t kMostPickleBytes = 512 << 20;

/// Reads pickles whose ends nothing but themselves tells.
class Pickles {
 public:
  explicit Pickles(const File& file) : file_(file), file_bytes_(file.size()) {}

  Graph next(std::string_view what) {
    std::size_t begun = 0;
    for (;;) {
      const auto length = pickle::length_of(std::span(buffer_).subspan(from_), what, begun);
      if (length) return pickle::parse(take(*length), what);
      if (start_ + buffer_.size() == file_bytes_) fail(Errc::corrupt, "{} ends early", what);
      if (buffer_.size() >= kMostPickleBytes) {
        fail(Errc::unsafe, "{} has more than {} MiB", what, kMostPickleBytes >> 20);
      }
      const std::uint64_t more = std::max<std::uint64_t>(buffer_.size() / 4, 256 << 10);
      const std::uint64_t old = buffer_.size();
      buffer_.reserve(std::min(file_bytes_ - start_, kMostPickleBytes + kMostPickleBytes / 4));
      buffer_.resize(std::min(file_bytes_ - start_, old + more));
      file_.read_at(start_ + old, std::span(buffer_).subspan(old));
    }
  }
  /// Bytes before the next pickle.
  std::uint64_t position() const { return start_ + from_; }

 private:
  /// The next `length` bytes. Of a large pickle there is no second copy.
  std::vector<std::byte> take(std::uint64_t length) {
    constexpr std::uint64_t kSmall = 1 << 20;
    const auto begin = buffer_.begin() + static_cast<std::ptrdiff_t>(from_);
    const auto end = begin + static_cast<std::ptrdiff_t>(length);
    from_ += length;
    if (length <= kSmall) return {begin, end};
    std::vector<std::byte> rest(end, buffer_.end());
    buffer_.erase(end, buffer_.end());
    buffer_.erase(buffer_.begin(), begin);
    start_ += std::exchange(from_, 0);
    return std::exchange(buffer_, std::move(rest));
  }

  const File& file_;
  std::uint64_t file_bytes_;
  std::vector<std::byte> buffer_;
  std::uint64_t start_ = 0;  // of the buffer in the file
  std::uint64_t from_ = 0;   // of the next pickle in the buffer
};

void check_head(Pickles& pickles) {
  static_cast<void>(pickles.next("the magic number"));
  const Graph protocol = pickles.next("the protocol");
  const bool known = protocol.kind(protocol.root()) == Kind::integer;
  if (!known || protocol.integer(protocol.root()) != 1001) {
    fail(Errc::unsupported, "it has protocol {} of PyTorch's old format; 1001 is known",
         known ? protocol.integer(protocol.root()) : -1);
  }
  const Graph system = pickles.next("the facts about the system");
  const auto little = system.find(system.root(), "little_endian");
  if (little && system.kind(*little) == Kind::boolean && !system.boolean(*little)) {
    fail(Errc::unsupported, "it was written on a big-endian machine; save it again on another one");
  }
}

/// Finds each storage's bytes behind the pickles.
void place_storages(const File& file, const Graph& keys, std::uint64_t position,
                    Storages& storages) {
  std::unordered_map<std::string_view, Storage*> by_key;
  for (Storage& storage : storages.all) by_key.emplace(storage.key, &storage);
  const std::uint64_t end = file.size();
  if (keys.kind(keys.root()) != Kind::list) fail(Errc::corrupt, "its storages have no list");
  std::size_t placed = 0;
  for (const Ref key : keys.elements(keys.root())) {
    const auto known = keys.kind(key) == Kind::text ? by_key.find(keys.text(key)) : by_key.end();
    if (known == by_key.end() || known->second->offset != 0) {
      fail(Errc::corrupt, "its list of storages is not that of its tensors");
    }
    Storage& storage = *known->second;
    std::int64_t elements = 0;
    if (end - position < sizeof(elements)) fail(Errc::corrupt, "it ends in front of a storage");
    file.read_at(position, std::as_writable_bytes(std::span(&elements, 1)));
    position += sizeof(elements);
    const std::uint64_t item = item_bytes(storage.dtype);
    if (elements < 0 || static_cast<std::uint64_t>(elements) != storage.bytes / item) {
      fail(Errc::corrupt, "storage '{}' has {} elements instead of {}", storage.key, elements,
           storage.bytes / item);
    }
    if (storage.bytes > end - position) fail(Errc::corrupt, "it ends in storage '{}'", storage.key);
    storage.offset = position;
    position += storage.bytes;
    ++placed;
  }
  if (placed != storages.all.size()) {
    fail(Errc::corrupt, "{} of its {} storages are not in the file", storages.all.size() - placed,
         storages.all.size());
  }
}

}  // namespace

bool is_legacy(const File& file) {
  constexpr std::uint64_t kMostMagicBytes = 64;
  std::vector<std::byte> head(std::min(file.size(), kMostMagicBytes));
  file.read_at(0, head);
  try {
    std::size_t begun = 0;
    if (!pickle::length_of(head, "the magic number", begun)) return false;
    const Graph magic = pickle::parse(std::move(head), "the magic number");
    return magic.kind(magic.root()) == Kind::big_integer && magic.decimal(magic.root()) == kMagic;
  } catch (const Error&) {
    return false;  // any other file
  }
}

LegacyFile read_legacy(const File& file) {
  Pickles pickles(file);
  check_head(pickles);
  LegacyFile result;
  result.graph = pickles.next("the pickled object");
  result.storages = storages_of(result.graph);
  const Graph keys = pickles.next("the list of storages");
  place_storages(file, keys, pickles.position(), result.storages);
  return result;
}

}  // namespace cairn::detail::torch
