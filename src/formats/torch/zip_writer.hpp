#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace cairn::detail::torch {

/// A ZIP archive laid out as PyTorch does it: members are stored, their data starts at multiples of
/// 64 bytes, and their CRCs follow the data. Everything has its place before any data is there, so
/// that many can write it. Sizes and positions of 4 GiB and more are ZIP64's. All members are
/// Local.
class ZipLayout {
 public:
  /// Adds a member; returns where in the file its data starts.
  std::uint64_t add(std::string name, std::uint64_t bytes);
  std::size_t size() const { return members_.size(); }
  /// Of the whole archive. Nothing may be added any more.
  std::uint64_t file_bytes() const;

  /// What is neither data of a member nor depends on it: bytes at a position of the file.
  struct Piece {
    std::uint64_t offset = 0;
    std::string bytes;
  };
  /// All bytes of the file but the members' data, in ascending order; `crcs`: CRC-32 of each
  /// member's data.
  std::vector<Piece> pieces(std::span<const std::uint32_t> crcs) const;

 private:
  struct Member {
    std::string name;
    std::uint64_t bytes = 0;
    std::uint64_t header = 0;
    std::uint64_t data = 0;
  };
  std::string header_of(const Member& member) const;
  std::string descriptor_of(const Member& member, std::uint32_t crc) const;
  std::string table_entry_of(const Member& member, std::uint32_t crc) const;
  std::string end_of(std::uint64_t table_bytes) const;

  std::vector<Member> members_;
  std::uint64_t end_ = 0;  ///< of the last member, descriptor included
};

}  // namespace cairn::detail::torch
