#pragma once

#include <cstddef>
#include <memory>

#include "cairn/manifest.hpp"
#include "cairn/placement.hpp"
#include "os/file.hpp"

namespace cairn::detail {

/// Reads any part of any tensor of a manifest in one process, opening each file once. Local.
/// `manifest` must outlive the reader. Not for use from two threads.
class Reader {
 public:
  explicit Reader(const Manifest& manifest);
  ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  /// Fills `out` with `piece` (a box, or a flat range) of `tensor` in dense row-major order, at the
  /// latest in flush(): neighbours are read together, so pieces should come in the order of the
  /// file. `out` must stay valid until then. Errors: corrupt (the extents do not cover the piece,
  /// or the file ends early), io, mismatch (see open_same).
  void add(const TensorEntry& tensor, const Placement& piece, std::byte* out);
  /// The same for bytes of file number `file` that are known to be the piece.
  void add_run(std::uint32_t file, std::uint64_t offset, std::byte* out, std::uint64_t bytes);
  void flush();
  /// Bytes that were read so far: as the files store them, those between neighbours that were read
  /// together included, and those that HDF5 was asked for.
  std::uint64_t bytes_read() const;
  /// Both at once.
  void read(const TensorEntry& tensor, const Placement& piece, std::byte* out);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Opens a file of a manifest and checks that it is the one that the manifest was made from. Local.
/// Errors: not_found, io; mismatch when it is another file.
File open_same(const FileEntry& entry);

/// XXH3-64 of one extent as the file holds it. Local. Errors: corrupt, io, mismatch.
std::uint64_t digest_in_file(Reader& reader, const TensorEntry& tensor, const Extent& extent);

}  // namespace cairn::detail
