#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cairn/dtype.hpp"
#include "cairn/export.hpp"
#include "cairn/placement.hpp"

namespace cairn {

/// Where the bytes of one part of a tensor lie.
struct Extent {
  std::uint32_t file = 0;    ///< index into Manifest::files
  std::uint64_t offset = 0;  ///< bytes from the start of the file to the part's first element
  /// The part of the tensor: a box, or (flat) a 1-D element range of the flattened tensor.
  bool flat = false;
  Box box;
  /// Bytes between neighbours per dimension of `box`. Empty: the part is dense and row-major.
  std::vector<std::uint64_t> strides;
  /// XXH3-64 of the part's bytes in dense row-major order, where the format records one.
  std::optional<std::uint64_t> digest;
  /// The rank that wrote the part, or -1 where the format does not say.
  std::int32_t writer = -1;
};

enum class Layout : std::uint8_t {
  contiguous = 0,  ///< one row-major run at TensorEntry::offset
  chunked = 1,     ///< a grid of chunks, each chunk one extent
};

/// One tensor of a checkpoint.
struct TensorEntry {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  Placement::Kind placement = Placement::Kind::replicated;
  Layout layout = Layout::contiguous;
  std::uint64_t offset = 0;  ///< contiguous layout: where the data starts in its file
  Shape chunk;               ///< chunked layout: the chunk's shape
  std::vector<Extent> extents;

  /// Bytes of the whole tensor. Local.
  std::uint64_t bytes() const { return element_count(shape) * item_bytes(dtype); }
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

/// What the commit record says.
struct CommitInfo {
  unsigned format_version = 0;
  std::string library_version;
  std::uint64_t step = 0;
  std::string structure;     ///< hash of names, dtypes and shapes, hexadecimal
  int writers = 0;           ///< ranks that wrote the checkpoint
  std::string committed_at;  ///< UTC, ISO 8601
};

/// A checkpoint as a table: what is in it and where the bytes are. A value; equal on all ranks.
struct CAIRN_EXPORT Manifest {
  std::string format;  ///< "cairn"
  std::vector<FileEntry> files;
  CommitInfo commit;
  std::vector<TensorEntry> tensors;
  /// JSON documents by name: "context", "topology", "provenance", ...
  std::map<std::string, std::string> documents;
  /// What a reader noticed and a user should know, for example that the file was rewritten.
  std::vector<std::string> warnings;

  /// The first file. Local.
  const std::filesystem::path& path() const { return files.at(0).path; }
  /// The tensor of that name, or nullptr. Linear: use index_by_name for many look-ups. Local.
  const TensorEntry* find(std::string_view name) const;
  /// Bytes of all tensors, each counted once. Local.
  std::uint64_t tensor_bytes() const;
};

/// Position in `manifest.tensors` by name. The keys point into `manifest`. Local.
CAIRN_EXPORT std::unordered_map<std::string_view, std::size_t> index_by_name(
    const Manifest& manifest);

}  // namespace cairn
