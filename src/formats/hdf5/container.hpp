#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cairn/manifest.hpp"

namespace cairn::detail {

/// What rank 0 reads of a container and gives to all ranks: the manifest without its tensors, and
/// the table that they are in.
struct ContainerTable {
  Manifest head;
  std::vector<std::byte> index;
};

/// Reads a container's commit record, index and documents and checks their digests. A container
/// that another program rewrote (h5repack, h5py) is noticed: its manifest then says Access::hdf5
/// and carries a warning. Local. Errors: not_found; usage (a directory); unsupported (not a cairn
/// container, or a newer one); corrupt (damaged, truncated, or a save that never finished); io.
ContainerTable read_container(const std::filesystem::path& path);
/// Checks the table as far as that goes without the file (check_index). Local. Errors: corrupt,
/// unsupported.
void check_table(const ContainerTable& table);
/// The manifest of a table that was checked, here or on another rank. Local. Errors: corrupt,
/// unsupported.
Manifest manifest_of(ContainerTable table);
/// Checks HDF5's own metadata, where nobody rewrote it. Local. Errors: corrupt, io, mismatch.
void check_metadata(const Manifest& manifest);

/// How a file differs from what it was, as the end of a sentence; empty where it does not. Local.
/// Errors: io.
std::string difference_of(const FileEntry& entry);
/// Checks that the files that a container's tensors lie in besides its own are there and are those
/// that it was saved with. Local. Errors: corrupt, naming both files; io.
void check_files(const Manifest& manifest);
/// The names of the files, in the same directory, that a committed container takes tensors from;
/// none for any other file, nor for a damaged one. Calls HDF5 only where another program rewrote
/// the file. Local. Errors: not_found, io; unsupported, when a newer cairn committed it, or HDF5
/// would be needed and `may_call_hdf5` is not set.
std::vector<std::string> referenced_files(const std::filesystem::path& path, bool may_call_hdf5);

/// Whether `path` holds a committed container, by its trailer, commit record and size alone. Local.
/// Errors: io, when the file can't be read; unsupported, when a newer cairn committed it.
bool is_committed(const std::filesystem::path& path);

/// What a committed container tells at little cost.
struct CommittedFile {
  CommitInfo commit;
  std::uint64_t bytes = 0;
  std::uint64_t fingerprint = 0;
  std::string context;  ///< the document of that name; empty where there is none, or it is damaged
  std::vector<std::string> needs;  ///< referenced_files
};
/// That of a container that nobody has rewritten; nothing for any other file. Calls no HDF5. Local.
/// Errors: io, unsupported.
std::optional<CommittedFile> committed_file(const std::filesystem::path& path);

}  // namespace cairn::detail
