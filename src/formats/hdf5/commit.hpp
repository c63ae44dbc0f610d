#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/hdf5/layout.hpp"

namespace cairn::detail {

/// The JSON text in `/commit`: who wrote what, and the digests of everything but the tensors.
struct CommitRecord {
  CommitInfo info;
  std::uint64_t hdf5_bytes = 0;
  std::uint64_t metadata_digest = 0;
  Span index;
  std::uint64_t index_digest = 0;
  std::map<std::string, DocumentSlot> documents;
};

/// kCommitBytes bytes, NUL-padded. Errors: usage when the documents are too many to list.
std::vector<std::byte> encode_commit(const CommitRecord& record);
/// Errors: usage, when documents with rooms of these sizes could not all be listed by any record.
void check_commit_room(const std::map<std::string, std::uint64_t>& rooms);
/// Errors: corrupt; unsupported for a newer format version.
CommitRecord decode_commit(std::span<const std::byte> bytes);

/// The last 64 bytes of a container: where the commit record is, and its digest. Any program that
/// rewrites the HDF5 file drops them, which is how that is noticed.
struct Trailer {
  std::uint64_t commit_offset = 0;
  std::uint64_t commit_digest = 0;
  std::uint64_t file_bytes = 0;
};

std::array<std::byte, kTrailerBytes> encode_trailer(const Trailer& trailer);
/// Whether the bytes start as a trailer does.
bool is_trailer(std::span<const std::byte> bytes);
/// Nothing where the bytes are no trailer at all. Errors: corrupt when it is damaged, unsupported
/// for a newer format version.
std::optional<Trailer> decode_trailer(std::span<const std::byte> bytes);

}  // namespace cairn::detail
