// How a container is recognised:
//
// 1. The last 64 bytes are a valid trailer: nobody but cairn wrote the file since. Commit record,
//    index and documents are read at their offsets and checked against their digests, and so is
//    HDF5's own metadata. No HDF5 call is made, so a damaged file never reaches the library.
//
// 2. There is no trailer, and the file ends where its superblock says: another program rewrote it.
//    Commit record, index and documents are read as datasets; offsets no longer hold.
//
// 3. Anything else is damaged, truncated, unfinished, or foreign.
#include "formats/hdf5/container.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "base/digest.hpp"
#include "base/json_text.hpp"
#include "formats/hdf5/commit.hpp"
#include "formats/hdf5/foreign_dataset.hpp"
#include "formats/hdf5/h5.hpp"
#include "formats/hdf5/index.hpp"
#include "formats/hdf5/index_records.hpp"
#include "formats/hdf5/layout.hpp"
#include "formats/reading.hpp"
#include "manifest/names.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

constexpr unsigned char kSignature[kSignatureBytes] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};

/// A run of the file, after checking that it lies inside.
std::vector<std::byte> read_span(const File& file, const Span& span) {
  const std::uint64_t size = file.size();
  if (span.offset > size || span.bytes > size - span.offset) {
    fail(Errc::corrupt, "its commit record refers past its end");
  }
  std::vector<std::byte> bytes(span.bytes);
  file.read_at(span.offset, bytes);
  return bytes;
}

std::vector<std::byte> read_checked(const File& file, const Span& span, std::uint64_t digest,
                                    std::string_view what) {
  std::vector<std::byte> bytes = read_span(file, span);
  if (digest_of(bytes) != digest) fail(Errc::corrupt, "its {} is damaged", what);
  return bytes;
}

std::string text_of(std::span<const std::byte> bytes) {
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  return {text, strnlen(text, bytes.size())};
}

std::optional<Trailer> read_trailer(const File& file) {
  const std::uint64_t size = file.size();
  if (size < kTrailerBytes) return std::nullopt;
  std::array<std::byte, kTrailerBytes> bytes{};
  file.read_at(size - kTrailerBytes, bytes);
  auto trailer = decode_trailer(bytes);
  if (trailer && trailer->file_bytes != size)
    fail(Errc::corrupt, "it has {} bytes but was committed with {}", size, trailer->file_bytes);
  return trailer;
}

CommitRecord read_commit(const File& file, const Trailer& trailer) {
  return decode_commit(read_checked(file, {trailer.commit_offset, kCommitBytes},
                                    trailer.commit_digest, "commit record"));
}

void check_metadata_in(const File& file, const CommitRecord& commit, const Trailer& trailer,
                       const Manifest& manifest) {
  if (commit.hdf5_bytes + kTrailerBytes != trailer.file_bytes) {
    fail(Errc::corrupt, "its sizes contradict each other");
  }
  constexpr std::uint64_t kWindow = 1 << 20;
  Digester digester;
  std::vector<std::byte> window;
  const auto data = data_spans(tensor_runs(manifest.tensors), commit.index, commit.documents,
                               trailer.commit_offset);
  for (const Span& span : metadata_spans(data, commit.hdf5_bytes)) {
    for (std::uint64_t at = 0; at < span.bytes; at += kWindow) {
      window.resize(std::min(kWindow, span.bytes - at));
      file.read_at(span.offset + at, window);
      digester.update(window);
    }
  }
  if (digester.value() != commit.metadata_digest)
    fail(Errc::corrupt, "its HDF5 metadata is damaged");
}

void take_document(ContainerTable& table, const std::string& name,
                   std::span<const std::byte> bytes) {
  std::string& text = table.head.documents[name] = text_of(bytes);
  if (is_deeper(text))
    fail(Errc::unsafe, "its document '{}' is nested deeper than {}", name, kMostJsonDepth);
}

void read_untouched(const File& file, const Trailer& trailer, ContainerTable& table) {
  const CommitRecord commit = read_commit(file, trailer);
  table.head.commit = commit.info;
  table.index = read_checked(file, commit.index, commit.index_digest, "index");
  for (const auto& [name, slot] : commit.documents) {
    take_document(table, name,
                  read_checked(file, slot.span, slot.digest, fmt::format("document '{}'", name)));
  }
}

/// Reads commit record, index and documents of a rewritten container as datasets.
class RoomReader {
 public:
  /// Errors: corrupt.
  explicit RoomReader(const File& file)
      : container_(h5::open_serial(file.path())), left_(file.size() + kMostGrowth) {}
  hid_t file() const { return container_.get(); }
  /// All bytes of a one-dimensional u8 or a scalar string dataset, which must be `expected`.
  /// Errors: corrupt; unsafe, as ForeignDataset, and where all rooms are much more than the file.
  std::vector<std::byte> read(const std::string& name, std::uint64_t expected);

 private:
  static constexpr std::uint64_t kMostGrowth = 64 << 20;
  h5::SerialFile container_;
  std::uint64_t left_;
};

std::vector<std::byte> RoomReader::read(const std::string& name, std::uint64_t expected) {
  ForeignDataset dataset(file(), name, fmt::format("dataset '/{}'", name));
  const h5::Type type(H5Dget_type(dataset.id()), "get a dataset's type", Errc::corrupt);
  if (H5Tis_variable_str(type.get()) != 0 || H5Tdetect_class(type.get(), H5T_VLEN) != 0 ||
      H5Tdetect_class(type.get(), H5T_REFERENCE) != 0 || expected == 0 ||
      expected % dataset.item() != 0 ||
      element_count(dataset.shape()) != expected / dataset.item()) {
    fail(Errc::corrupt, "{} is not what cairn wrote", dataset.what());
  }
  if (expected > left_) {
    fail(Errc::unsafe, "{} and what was read before it are {} MiB more than the file has",
         dataset.what(), kMostGrowth >> 20);
  }
  left_ -= expected;
  std::vector<std::byte> bytes(expected);
  dataset.read(type.get(), Box::whole(dataset.shape()), bytes.data());
  return bytes;
}

/// Where the superblock (version 2 or 3, as cairn writes it; 0 or 1 after h5repack) says the file
/// ends.
std::optional<std::uint64_t> superblock_end(const File& file) {
  std::array<std::byte, 52> head{};
  if (file.size() < head.size()) return std::nullopt;
  file.read_at(0, head);
  const auto version = static_cast<unsigned>(head[8]);
  // HDF5 File Format Specification 3.0, II.A: end-of-file address after base and extension
  // addresses.
  const std::size_t at = version >= 2 ? 28 : version == 1 ? 44 : 40;
  std::uint64_t end = 0;
  std::memcpy(&end, head.data() + at, sizeof(end));
  return end;
}

void read_rewritten(const File& file, ContainerTable& table) {
  // Before the library sees the file: what is merely cut or has a damaged trailer ends here.
  if (file.size() != superblock_end(file)) {
    fail(Errc::corrupt,
         "it does not end where its HDF5 superblock says: it is truncated, or its trailer is "
         "damaged");
  }
  const h5::Session session;
  RoomReader rooms(file);
  if (H5Lexists(rooms.file(), std::string(names::kCommit).c_str(), H5P_DEFAULT) <= 0) {
    fail(Errc::unsupported, "it is an HDF5 file, but not a cairn container: it has no '/commit'");
  }
  const CommitRecord commit = decode_commit(rooms.read(std::string(names::kCommit), kCommitBytes));
  table.index = rooms.read(std::string(names::kIndex), commit.index.bytes);
  if (digest_of(table.index) != commit.index_digest) fail(Errc::corrupt, "its index is damaged");
  Manifest& manifest = table.head;
  manifest.commit = commit.info;
  for (const auto& [name, slot] : commit.documents) {
    const auto text = rooms.read(names::document(name), slot.span.bytes);
    if (digest_of(text) != slot.digest) fail(Errc::corrupt, "its document '{}' is damaged", name);
    take_document(table, name, text);
  }
  manifest.files.front().access = Access::hdf5;
  manifest.warnings.push_back(
      fmt::format("'{}' was rewritten by another program since cairn wrote it; its tensors are "
                  "read through HDF5",
                  file.path().string()));
}

void warn_of_other_step(const std::filesystem::path& path, Manifest& manifest) {
  const auto named = names::parse_checkpoint_file(path.filename().string());
  if (!named || *named == manifest.commit.step) return;
  manifest.warnings.push_back(fmt::format("'{}' is named after step {} but holds step {}",
                                          path.string(), *named, manifest.commit.step));
}

enum class Head { signature, withheld, other };

/// What the first 8 bytes say.
Head head_of(const File& file) {
  std::array<std::byte, kSignatureBytes> head{};
  if (file.size() < head.size()) return Head::other;
  file.read_at(0, head);
  if (std::memcmp(head.data(), kSignature, sizeof(kSignature)) == 0) return Head::signature;
  constexpr std::array<std::byte, kSignatureBytes> kWithheld{};
  return head == kWithheld ? Head::withheld : Head::other;
}

void read_any(const File& file, ContainerTable& table) {
  const Head head = head_of(file);
  if (head == Head::withheld) {
    fail(Errc::corrupt, "it is a save that was never committed, or its first bytes are lost");
  }
  if (const auto trailer = read_trailer(file)) return read_untouched(file, *trailer, table);
  if (head == Head::signature) return read_rewritten(file, table);
  fail(Errc::unsupported, "it is not a cairn container: it does not start with the HDF5 signature");
}

constexpr std::string_view kAdvice = "; use an older checkpoint";

/// The directory that the names in a container mean, also where a link leads to it.
std::filesystem::path directory_of(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::is_symlink(path, ignored) ? std::filesystem::canonical(path).parent_path()
                                                    : path.parent_path();
}

/// As referenced_files, of a container with a trailer. Reads all of the index only where it must.
std::vector<std::string> needs_of(const File& file, const CommitRecord& commit) {
  const auto head = read_span(file, {commit.index.offset, sizeof(IndexHeader)});
  IndexHeader header{};
  std::memcpy(&header, head.data(), sizeof(header));
  if ((header.flags & kHasFiles) == 0) return {};
  try {
    std::vector<std::string> names;
    const auto index = read_checked(file, commit.index, commit.index_digest, "index");
    for (ReferencedFile& other : files_of_index(index)) names.push_back(std::move(other.name));
    return names;
  } catch (const Error& error) {
    if (error.code() != Errc::corrupt) throw;
    return {};
  }
}

}  // namespace

ContainerTable read_container(const std::filesystem::path& path) {
  const File file = File::open_read(path);
  ContainerTable table;
  table.head.format = "cairn";
  table.head.files.push_back({path, file.size(), Access::extents, file.fingerprint()});
  reading(path, kAdvice, [&] {
    read_any(file, table);
    for (const ReferencedFile& other : files_of_index(table.index)) {
      table.head.files.push_back(
          {directory_of(path) / other.name, other.bytes, Access::extents, other.fingerprint});
    }
    warn_of_other_step(path, table.head);
  });
  return table;
}

void check_table(const ContainerTable& table) {
  reading(table.head.path(), kAdvice, [&] { check_index(table.index, table.head.commit.writers); });
}

Manifest manifest_of(ContainerTable table) {
  const std::filesystem::path path = table.head.path();
  return reading(path, kAdvice, [&] {
    Manifest manifest = std::move(table.head);
    manifest.tensors = TensorTable(std::make_shared<IndexTable>(std::move(table.index)));
    return manifest;
  });
}

void check_metadata(const Manifest& manifest) {
  if (manifest.files.at(0).access != Access::extents) return;
  reading(manifest.path(), kAdvice, [&] {
    const File file = File::open_read(manifest.path());
    const FileEntry& entry = manifest.files.front();
    if (file.size() != entry.bytes || file.fingerprint() != entry.fingerprint) {
      fail(Errc::mismatch, "it was replaced while it was opened; open it again");
    }
    const auto trailer = read_trailer(file);
    if (!trailer) fail(Errc::corrupt, "it has lost its trailer");
    check_metadata_in(file, read_commit(file, *trailer), *trailer, manifest);
  });
}

std::optional<CommittedFile> committed_file(const std::filesystem::path& path) {
  try {
    const File file = File::open_read(path);
    const auto trailer = read_trailer(file);
    if (!trailer || head_of(file) != Head::signature) return std::nullopt;
    const CommitRecord commit = read_commit(file, *trailer);
    CommittedFile found{commit.info, file.size(), file.fingerprint(), {}, needs_of(file, commit)};
    if (const auto slot = commit.documents.find("context"); slot != commit.documents.end()) {
      const std::vector<std::byte> bytes = read_span(file, slot->second.span);
      if (digest_of(bytes) == slot->second.digest) found.context = text_of(bytes);
    }
    return found;
  } catch (const Error& error) {
    if (error.code() == Errc::io || error.code() == Errc::unsupported) throw;
    return std::nullopt;
  }
}

std::string difference_of(const FileEntry& entry) {
  try {
    const File file = File::open_read(entry.path);
    if (file.size() == entry.bytes && file.fingerprint() == entry.fingerprint) return {};
    return fmt::format("is another file now ({} bytes; it had {})", file.size(), entry.bytes);
  } catch (const Error& error) {
    if (error.code() != Errc::not_found) throw;
    return "is missing";
  }
}

void check_files(const Manifest& manifest) {
  reading(manifest.path(), kAdvice, [&] {
    for (std::size_t f = 1; f < manifest.files.size(); ++f) {
      const std::string difference = difference_of(manifest.files[f]);
      if (difference.empty()) continue;
      fail(Errc::corrupt,
           "it holds only what had changed when it was saved (save.delta) and takes the rest from "
           "'{}', which {}; put that file back",
           manifest.files[f].path.string(), difference);
    }
  });
}

std::vector<std::string> referenced_files(const std::filesystem::path& path, bool may_call_hdf5) {
  try {
    const File file = File::open_read(path);
    if (head_of(file) != Head::signature) return {};
    if (const auto trailer = read_trailer(file)) {
      return reading(path, kAdvice, [&] { return needs_of(file, read_commit(file, *trailer)); });
    }
  } catch (const Error& error) {
    if (error.code() != Errc::corrupt) throw;
    return {};
  }
  if (!may_call_hdf5) {
    fail(Errc::unsupported,
         "'{}' was rewritten by another program; which files it needs is known to HDF5 only",
         path.string());
  }
  std::vector<std::string> names;
  try {
    const Manifest head = read_container(path).head;
    for (std::size_t f = 1; f < head.files.size(); ++f) {
      names.push_back(head.files[f].path.filename().string());
    }
  } catch (const Error& error) {
    if (error.code() == Errc::io) throw;
  }
  return names;
}

bool is_committed(const std::filesystem::path& path) {
  try {
    const File file = File::open_read(path);
    if (const auto trailer = read_trailer(file)) {
      read_commit(file, *trailer);
      return head_of(file) == Head::signature;
    }
  } catch (const Error& error) {
    // A file that can't be judged is not an uncommitted one: an older checkpoint would be taken
    // instead.
    if (error.code() == Errc::io) throw;
    if (error.code() == Errc::unsupported) {
      fail(Errc::unsupported, "'{}': {}, or name an older checkpoint", path.string(), error.what());
    }
    return false;
  }
  try {
    read_container(path);
    return true;
  } catch (const Error& error) {
    if (error.code() == Errc::io) throw;
    return false;
  }
}

}  // namespace cairn::detail
