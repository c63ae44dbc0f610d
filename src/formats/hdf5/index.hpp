#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cairn/manifest.hpp"

namespace cairn::detail {

/// A container beside this one that some of its tensors lie in, as it was when it was referred to.
struct ReferencedFile {
  std::string name;
  std::uint64_t bytes = 0;
  std::uint64_t fingerprint = 0;  ///< FileEntry::fingerprint
  int writers = 0;                ///< ranks that wrote it
  bool operator==(const ReferencedFile&) const = default;
};

/// The table in `/index` (docs/format.md, "Index"): names, dtypes, shapes, offsets, extents and
/// digests of all tensors as fixed-size records, and the `files` that their extents name by number,
/// from 1. Its size depends on the structure and the files alone.
std::uint64_t index_bytes(const std::vector<TensorEntry>& tensors,
                          const std::vector<ReferencedFile>& files = {});
std::vector<std::byte> encode_index(const std::vector<TensorEntry>& tensors,
                                    const std::vector<ReferencedFile>& files = {});
/// Errors: corrupt, unsupported. Checks every reference and that boxes lie in their tensors; sizes
/// are bounded by `bytes` before anything is allocated.
std::vector<TensorEntry> decode_index(std::span<const std::byte> bytes);
/// Checks all that decode_index checks, that extents tile their tensors (or some bytes would go
/// unchecked), and that each was written by one of `writers` ranks; without making the entries.
/// Errors: corrupt, unsupported.
void check_index(std::span<const std::byte> bytes, int writers);

/// The files that an index refers to. Errors: corrupt, unsupported.
std::vector<ReferencedFile> files_of_index(std::span<const std::byte> bytes);

class IndexTables;

/// An index as the source of a TensorTable. Rank 0 alone needs to check it: the others got the same
/// bytes. head() stays inside the bytes even where nobody did.
class IndexTable final : public TensorTable::Source {
 public:
  /// Errors: corrupt, unsupported, where the header is wrong.
  explicit IndexTable(std::vector<std::byte> bytes);
  ~IndexTable() override;
  std::size_t size() const override;
  TensorHead head(std::size_t position) const override;
  std::vector<TensorEntry> decode() const override;
  /// TensorEntry::content_digest of one that is not empty.
  std::uint64_t content_digest(std::size_t position) const;
  bool has_statistics() const;
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
  std::unique_ptr<const IndexTables> tables_;
};

}  // namespace cairn::detail
