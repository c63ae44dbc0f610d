#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/hdf5/index.hpp"
#include "os/file.hpp"

namespace cairn::detail {

/// A run of bytes in a file.
struct Span {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  bool operator==(const Span&) const = default;
};

/// Room for one JSON document, and the digest of the whole room once written.
struct DocumentSlot {
  Span span;
  std::uint64_t digest = 0;
};

/// Bytes of `/commit`, a NUL-padded JSON text.
inline constexpr std::uint64_t kCommitBytes = 8192;
/// Bytes of the trailer, which lies behind the HDF5 file proper.
inline constexpr std::uint64_t kTrailerBytes = 64;

/// Where everything of a container lies. The same for every save of one structure.
struct ContainerLayout {
  /// Offsets filled in; no digests but of those that lie in other files.
  std::vector<TensorEntry> tensors;
  std::vector<ReferencedFile> files;  ///< that extents name by number, from 1
  std::uint64_t hdf5_bytes = 0;       ///< the HDF5 file proper: its end-of-allocation address
  Span index;
  std::map<std::string, DocumentSlot> documents;
  std::uint64_t commit_offset = 0;

  std::uint64_t file_bytes() const { return hdf5_bytes + kTrailerBytes; }
  /// The most bytes that the file takes, more or less, where HDF5 places chunks.
  std::uint64_t bytes_to_reserve() const;
};

/// The bytes of HDF5's own metadata, as the library wrote them: everything outside tensors, index,
/// documents and commit record. Kept by rank 0 only.
struct Template {
  std::vector<std::pair<std::uint64_t, std::vector<std::byte>>>
      pieces;                ///< offset, bytes; ascending
  std::uint64_t digest = 0;  ///< of all pieces in order
};

/// The HDF5 signature, which is written last of all.
inline constexpr std::uint64_t kSignatureBytes = 8;

/// Room given to a document of `bytes`: a power of two, so that most later saves fit the same
/// layout.
std::uint64_t document_room(std::uint64_t bytes);

/// What lies outside the data: the gaps between the sorted `data` spans up to `end`.
/// Errors: corrupt when spans overlap or pass `end`.
std::vector<Span> metadata_spans(std::vector<Span> data, std::uint64_t end);
/// Where tensors lie in file 0, neighbours joined.
std::vector<Span> tensor_runs(std::span<const TensorEntry> tensors);
std::vector<Span> tensor_runs(const TensorTable& tensors);
/// Tensors (their runs), index, documents and commit record of a container.
std::vector<Span> data_spans(std::vector<Span> tensors, const Span& index,
                             const std::map<std::string, DocumentSlot>& documents,
                             std::uint64_t commit_offset);

/// The metadata of a file that ends, for HDF5, at byte `end`. Local. Errors: io, corrupt.
Template take_metadata(const File& file, const ContainerLayout& layout, std::uint64_t end);
/// Asks HDF5 where it put the chunks of tensors with filters, in a closed file, and notes it there.
/// Returns the end of the HDF5 file proper. Local. Errors: io, corrupt.
std::uint64_t locate_stored(const std::filesystem::path& path, std::vector<TensorEntry>& tensors);

/// Lets HDF5 build an empty container with datasets for all `tensors`, external links for those
/// whose extents lie in one of `files`, and rooms of the given sizes for the documents; and takes
/// its metadata. `deflate` is the level for tensors with filters. The work file `skeleton` exists
/// only during the call. Local. Errors: io, internal.
std::pair<ContainerLayout, Template> build_skeleton(
    const std::filesystem::path& skeleton, std::vector<TensorEntry> tensors,
    std::vector<ReferencedFile> files, const std::map<std::string, std::uint64_t>& rooms,
    unsigned deflate);

}  // namespace cairn::detail
