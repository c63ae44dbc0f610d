#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "cairn/manifest.hpp"
#include "formats/dcp/metadata.hpp"
#include "formats/table_bytes.hpp"
#include "os/file.hpp"

namespace cairn::detail::dcp {

/// What the pickle of a part says: one tensor in one storage.
struct PartPickle {
  DType dtype = DType::f32;
  Shape shape;
  Shape strides;                    ///< in bytes
  std::uint64_t first = 0;          ///< bytes from the storage's start to the first element
  std::string storage;              ///< its key
  std::uint64_t storage_bytes = 0;  ///< as the pickle says
};

/// Reads pickles of parts. Parts of one type and shape have the same one, byte for byte: it is read
/// once. Local.
class PartPickles {
 public:
  /// Errors: corrupt, unsupported, unsafe.
  PartPickle read(std::vector<std::byte> bytes);

 private:
  std::unordered_map<std::string, PartPickle> known_;
};

/// The data files of one checkpoint, each listed once, and a limited number open at a time. All
/// members are Local.
class DataFiles {
 public:
  /// Lifetime: that of all arguments.
  DataFiles(const std::filesystem::path& directory, Manifest& manifest, TableBytes& table_bytes)
      : directory_(directory), manifest_(manifest), table_bytes_(table_bytes) {}

  /// A file that is open.
  struct Open {
    static constexpr std::uint64_t kSmallBytes = 16 << 10;

    Open(File opened, std::uint32_t number_in_manifest, std::uint64_t size)
        : file(std::move(opened)), number(number_in_manifest), bytes(size) {}

    /// A small part, which lies in the file. Those that follow each other take few requests.
    /// Errors: io.
    std::vector<std::byte> read_small(const Stored& stored);

    File file;
    std::uint32_t number;  ///< in the manifest
    std::uint64_t bytes;

   private:
    std::vector<std::byte> block_;
    std::uint64_t start_ = 0;  // of the block
    std::uint64_t next_ = 0;   // where the last part ended
  };

  /// Lifetime: the result until the next call. Errors: corrupt (no such file), io.
  Open& open(const std::string& name);
  PartPickles& pickles() { return pickles_; }

 private:
  Open open_new(const std::string& name);

  const std::filesystem::path& directory_;
  Manifest& manifest_;
  TableBytes& table_bytes_;
  std::map<std::string, Open> open_;
  std::map<std::string, std::uint32_t> numbers_;  // in the manifest
  PartPickles pickles_;
};

/// Where the elements of a part lie in a data file.
struct Placed {
  Checksum checksum;         ///< of the storage around them
  bool has_checksum = true;  ///< else the file tells none
  std::uint64_t offset = 0;  ///< of the first
  Shape strides;             ///< in bytes

  /// Whether another part has the same bytes, as far as checksums tell.
  bool is_like(const Placed& other) const;
};

/// Looks into the files that torch.save wrote of a tensor's parts, in the order of its boxes.
/// Local. Errors: corrupt, unsupported, unsafe, io.
std::vector<Placed> places_of(DataFiles& files, const TensorMetadata& tensor);

/// Tells how a tensor lies that has all of its extents. Local.
void lay_out(TensorEntry& entry);

/// Makes a tensor of its parts. `table_bytes` counts all tensors. Local. Errors: unsafe (parts that
/// lie in too many pieces).
TensorEntry entry_of(TensorMetadata tensor, const std::vector<Placed>& places,
                     TableBytes& table_bytes);

}  // namespace cairn::detail::dcp
