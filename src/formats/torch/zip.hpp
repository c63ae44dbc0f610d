#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "os/file.hpp"

namespace cairn::detail {

/// One file in an archive.
struct ZipMember {
  std::string name;
  std::uint64_t offset = 0;  ///< of its data, from the start of the file
  std::uint64_t bytes = 0;   ///< as they lie in the file
  std::uint64_t unpacked_bytes = 0;
  std::optional<std::uint32_t> crc;  ///< CRC-32 of its unpacked data; nothing where none was taken
  std::uint16_t method = 0;          ///< 0: stored as it is
};

inline constexpr std::string_view kMissingCrcs =
    "it was written without CRCs (set_crc32_options), so that nobody can tell whether its bytes "
    "are damaged";

/// The table of a ZIP archive (APPNOTE.TXT 4.3 to 4.5: central directory, ZIP64), members sorted by
/// name. torch.save can be told to take no CRCs (set_crc32_options, since 2.6), and writes 0 for
/// all.
class ZipTable {
 public:
  /// Reads the table of the archive that fills `bytes` bytes of `file` from `begin` on, without the
  /// members' data. Whatever readers could disagree about is refused: members that overlap or have
  /// one name, headers that contradict each other, bytes before the archive or behind it. Local.
  /// Errors: corrupt; unsupported (encrypted, several disks); unsafe (a name that leaves the
  /// archive, a table that takes too much memory); io.
  static ZipTable read(const File& file, std::uint64_t begin, std::uint64_t bytes);
  /// The same of an archive that was read already, `begin` bytes from the start of its file.
  static ZipTable read(std::vector<std::byte> archive, std::uint64_t begin);

  const std::vector<ZipMember>& members() const { return members_; }
  const ZipMember* find(std::string_view name) const;
  /// The data of a member of this archive of at most `most_bytes`, unpacked and checked against its
  /// CRC, if any. `file`: the one that the table was read from. Local. Errors: corrupt; unsupported
  /// (a compression other than deflate); unsafe (too long); io.
  std::vector<std::byte> read_member(const File& file, const ZipMember& member,
                                     std::uint64_t most_bytes) const;

 private:
  std::vector<std::byte> bytes_of(const File& file, const ZipMember& member) const;

  std::vector<ZipMember> members_;
  std::vector<std::byte> tail_;  // the archive's last bytes, or all of a small one
  std::uint64_t tail_start_ = 0;
};

}  // namespace cairn::detail
