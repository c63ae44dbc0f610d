#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "cairn/dtype.hpp"
#include "cairn/export.hpp"
#include "cairn/placement.hpp"

namespace cairn {

/// Where the bytes of one part of a tensor lie: dense and row-major, unless the part is several
/// runs of a contiguous tensor.
struct Extent {
  std::uint32_t file = 0;    ///< index into Manifest::files
  std::uint64_t offset = 0;  ///< bytes from the start of the file to the part's first element
  /// The part of the tensor: a box, or (flat) a 1-D element range of the flattened tensor.
  bool flat = false;
  Box box;
  /// The part's share of its tensor's CRC-64 (docs/format.md, "Digests"), where the format records
  /// one.
  std::optional<std::uint64_t> digest;
  /// The rank that wrote the part, or -1 where the format does not say.
  std::int32_t writer = -1;
};

enum class Layout : std::uint8_t {
  contiguous = 0,  ///< one row-major run at TensorEntry::offset
  chunked = 1,     ///< a grid of chunks, each chunk one extent
  strided = 2,     ///< one extent whose elements lie at TensorEntry::strides: a view of other data
  pieces = 3,      ///< extents of any boxes, each dense, in any files
};

/// What was done to the bytes of each chunk of a chunked tensor, in this order; bits of
/// TensorEntry::filters.
inline constexpr std::uint8_t kShuffled = 1;  ///< first bytes of all elements, second bytes, ...
inline constexpr std::uint8_t kDeflated = 2;  ///< zlib

/// A chunk of a tensor with filters, as the file holds it.
struct StoredChunk {
  std::uint64_t offset = 0;
  std::uint32_t bytes = 0;
  std::uint32_t skipped = 0;  ///< bit i: filter i of those in use was not applied to this chunk
  bool operator==(const StoredChunk&) const = default;
};

/// What the elements of a tensor are like. Real and imaginary parts count as two; integers as f64.
struct Statistics {
  std::uint64_t nan = 0;  ///< elements
  std::uint64_t inf = 0;
  // Of the finite elements; min is inf and max -inf where there are none.
  double min = std::numeric_limits<double>::infinity();
  double max = -std::numeric_limits<double>::infinity();
  double sum_squares = 0;  ///< its root is the L2 norm; depends on the sharding in its last digits
};

/// One key on the way from the root of a file to a tensor: of a mapping, where texts and numbers
/// are different keys, or a position in a sequence.
using PathKey = std::variant<std::string, std::int64_t>;

/// One tensor of a checkpoint.
struct CAIRN_EXPORT TensorEntry {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  Placement::Kind placement = Placement::Kind::replicated;
  Layout layout = Layout::contiguous;
  std::uint64_t offset = 0;  ///< contiguous layout: where the data starts in its file
  Shape chunk;               ///< chunked layout: the chunk's shape
  Shape strides;             ///< strided layout: bytes between neighbours, by dimension
  std::uint8_t filters = 0;  ///< 0: the bytes lie in the file as they are
  /// With filters: the chunks in row-major order of their grid. The extents then say who wrote
  /// what, and their digests, but have no offsets of their own.
  std::vector<StoredChunk> stored;
  std::vector<Extent> extents;
  std::optional<Statistics> statistics;  ///< where they were wanted (SaveOptions::statistics)
  /// The keys that lead to the tensor in its file. Empty where the name says it all: the dataset's
  /// path in a container, the only key elsewhere.
  std::vector<PathKey> path;

  /// CRC-64/XZ of the tensor's row-major little-endian bytes, whatever ranks and placements it was
  /// saved with; nothing where the format records no digests. Local.
  std::optional<std::uint64_t> content_digest() const;
  /// Bytes of the whole tensor. Local.
  std::uint64_t bytes() const { return element_count(shape) * item_bytes(dtype); }
};

/// What a look-up or a plain read needs of a tensor, without its extents. Lifetime: that of the
/// table it came from.
struct TensorHead {
  std::string_view name;
  DType dtype = DType::f32;
  std::span<const std::uint64_t> shape;
  Layout layout = Layout::contiguous;
  std::uint64_t offset = 0;  ///< contiguous layout: where the data starts in its file
  std::uint32_t file = 0;    ///< index into Manifest::files
};

/// The tensors of a checkpoint in the order of its table: a vector, but one that may come from a
/// file's own table, which is then decoded only when somebody asks for an entry. head() never
/// decodes. A value; all members are Local. Not for use from two threads, even read-only, before
/// all() was called once.
class CAIRN_EXPORT TensorTable {
 public:
  /// A table in the form that a file has it in, checked already.
  class Source {
   public:
    virtual ~Source() = default;
    virtual std::size_t size() const = 0;
    virtual TensorHead head(std::size_t position) const = 0;
    virtual std::vector<TensorEntry> decode() const = 0;
  };

  using value_type = TensorEntry;
  using iterator = std::vector<TensorEntry>::iterator;
  using const_iterator = std::vector<TensorEntry>::const_iterator;

  TensorTable() = default;
  explicit TensorTable(std::vector<TensorEntry> entries) : entries_(std::move(entries)) {}
  explicit TensorTable(std::shared_ptr<const Source> source)
      : source_(std::move(source)), decoded_(false) {}

  std::size_t size() const { return decoded_ ? entries_.size() : source_->size(); }
  bool empty() const { return size() == 0; }
  TensorHead head(std::size_t position) const;

  const std::vector<TensorEntry>& all() const;
  std::vector<TensorEntry>& all();
  operator std::span<const TensorEntry>() const { return all(); }  // NOLINT
  const TensorEntry& operator[](std::size_t position) const { return all()[position]; }
  TensorEntry& operator[](std::size_t position) { return all()[position]; }
  const TensorEntry& at(std::size_t position) const { return all().at(position); }
  TensorEntry& at(std::size_t position) { return all().at(position); }
  const TensorEntry& front() const { return all().front(); }
  TensorEntry& front() { return all().front(); }
  const TensorEntry& back() const { return all().back(); }
  TensorEntry& back() { return all().back(); }
  const_iterator begin() const { return all().begin(); }
  const_iterator end() const { return all().end(); }
  iterator begin() { return all().begin(); }
  iterator end() { return all().end(); }
  void push_back(TensorEntry entry) { all().push_back(std::move(entry)); }
  void reserve(std::size_t count) { all().reserve(count); }

 private:
  std::shared_ptr<const Source> source_;  // kept after decoding: names of its heads may be in use
  mutable std::vector<TensorEntry> entries_;
  mutable bool decoded_ = true;
};

/// How the bytes of a file are to be read.
enum class Access : std::uint8_t {
  extents = 0,  ///< at the offsets of the extents
  hdf5 = 1,     ///< through the HDF5 library, by dataset: the file was rewritten by another program
};

struct FileEntry {
  std::filesystem::path path;
  std::uint64_t bytes = 0;
  Access access = Access::extents;
  std::uint64_t fingerprint = 0;  ///< XXH3-64 of its first and last 4096 bytes
};

/// A range of a file under the format's own checksum, whatever tensors lie in it.
struct Checksum {
  std::uint32_t file = 0;  ///< index into Manifest::files
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  std::uint32_t crc32 = 0;  ///< CRC-32 as in gzip and ZIP
};

/// What the commit record says. Formats other than the container have none.
struct CommitInfo {
  unsigned format_version = 0;  ///< 0: no commit record
  std::string library_version;
  std::uint64_t step = 0;
  std::string structure;     ///< hash of names, dtypes and shapes, hexadecimal
  int writers = 0;           ///< ranks that wrote the checkpoint
  std::string committed_at;  ///< UTC, ISO 8601
};

/// A checkpoint as a table: what is in it and where the bytes are. A value; equal on all ranks.
struct CAIRN_EXPORT Manifest {
  std::string format;  ///< "cairn", "safetensors", "torch", "dcp", "deepspeed" or "megatron"
  /// The first is the one that the checkpoint is named by; an index is followed by its shards.
  std::vector<FileEntry> files;
  CommitInfo commit;
  TensorTable tensors;
  /// Where digests are not kept by tensor; in the order of the files, without overlaps.
  std::vector<Checksum> checksums;
  /// JSON documents by name: "context", "topology", "provenance", ...
  std::map<std::string, std::string> documents;
  /// What a reader noticed and a user should know, for example that the file was rewritten.
  std::vector<std::string> warnings;

  /// The first file. Local.
  const std::filesystem::path& path() const { return files.at(0).path; }
  /// Whether this is cairn's own format: with commit record, digests, and HDF5. Local.
  bool is_container() const { return format == "cairn"; }
  /// Bytes of all files. Local.
  std::uint64_t file_bytes() const;
  /// The tensor of that name, or nullptr. Linear: use TensorNames for many look-ups. Local.
  const TensorEntry* find(std::string_view name) const;
  /// Bytes of all tensors, each counted once. Local.
  std::uint64_t tensor_bytes() const;
};

/// Finds tensors by name. Lifetime: that of the tensors, which must not move. All members are
/// Local.
class CAIRN_EXPORT TensorNames {
 public:
  explicit TensorNames(const TensorTable& tensors);
  explicit TensorNames(std::span<const TensorEntry> tensors);
  explicit TensorNames(std::vector<std::string_view> names);

  /// The position of the tensor of that name, the first one where there are several.
  std::optional<std::size_t> find(std::string_view name) const;
  bool contains(std::string_view name) const { return find(name).has_value(); }
  /// A name that more than one tensor has, or nothing.
  std::optional<std::string_view> duplicate() const { return duplicate_; }

 private:
  /// Open addressing: half of the slots at least are empty, so that a search is short.
  struct Slot {
    std::uint32_t hash = 0;
    std::uint32_t place = 0;  ///< position + 1; 0: empty
  };
  std::size_t slot_of(std::string_view name, std::uint64_t hash) const;

  std::vector<std::string_view> names_;
  std::vector<Slot> slots_;
  std::optional<std::string_view> duplicate_;
};

}  // namespace cairn
