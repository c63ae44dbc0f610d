#include "formats/torch/zip_writer.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/throw.hpp"

namespace cairn::detail::torch {
namespace {

constexpr std::uint64_t kAlignment = 64;
constexpr std::uint64_t kLocalBytes = 30;
constexpr std::uint64_t kCentralBytes = 46;
constexpr std::uint64_t kEndBytes = 56 + 20 + 22;  // ZIP64's record and locator, and the old record
constexpr std::uint64_t kLong = std::numeric_limits<std::uint32_t>::max();
constexpr std::uint16_t kFlags = 0x0808;  // names are UTF-8, and CRCs follow the data

/// Numbers one behind the other, little-endian.
class Bytes {
 public:
  Bytes& add(std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i, value >>= 8) out_ += static_cast<char>(value & 0xff);
    return *this;
  }
  Bytes& add(std::string_view text) {
    out_ += text;
    return *this;
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

/// What the 32-bit fields of a header have no room for, as its ZIP64 field.
std::string long_field(std::uint64_t bytes, std::uint64_t header) {
  Bytes numbers;
  if (bytes >= kLong) numbers.add(bytes, 8).add(bytes, 8);
  if (header >= kLong) numbers.add(header, 8);
  const std::string text = numbers.take();
  if (text.empty()) return {};
  return Bytes().add(1, 2).add(text.size(), 2).add(text).take();
}

/// A field without meaning, which puts the data behind it on a multiple of 64.
std::string padding(std::uint64_t start) {
  const std::uint64_t count = (kAlignment - (start + 4) % kAlignment) % kAlignment;
  return Bytes().add("FB").add(count, 2).add(std::string(count, 'Z')).take();
}

bool is_long(std::uint64_t bytes, std::uint64_t header) {
  return bytes >= kLong || header >= kLong;
}

std::uint64_t descriptor_bytes(std::uint64_t bytes, std::uint64_t header) {
  return is_long(bytes, header) ? 24 : 16;
}

}  // namespace

std::uint64_t ZipLayout::add(std::string name, std::uint64_t bytes) {
  if (name.size() > std::numeric_limits<std::uint16_t>::max()) {
    fail(Errc::unsupported, "a name of {} bytes is too long for a zip archive", name.size());
  }
  Member member{std::move(name), bytes, end_, 0};
  member.data = end_ + header_of(member).size();
  end_ = member.data + bytes + descriptor_bytes(bytes, member.header);
  members_.push_back(std::move(member));
  return members_.back().data;
}

std::string ZipLayout::header_of(const Member& member) const {
  const std::string field = long_field(member.bytes, member.header);
  const std::string pad = padding(member.header + kLocalBytes + member.name.size() + field.size());
  return Bytes()
      .add(0x04034b50, 4)
      .add(0, 2)  // version needed
      .add(kFlags, 2)
      .add(0, 2)   // stored
      .add(0, 4)   // time and date
      .add(0, 12)  // CRC and sizes: behind the data
      .add(member.name.size(), 2)
      .add(field.size() + pad.size(), 2)
      .add(member.name)
      .add(field)
      .add(pad)
      .take();
}

std::string ZipLayout::descriptor_of(const Member& member, std::uint32_t crc) const {
  const int width = is_long(member.bytes, member.header) ? 8 : 4;
  return Bytes()
      .add(0x08074b50, 4)
      .add(crc, 4)
      .add(member.bytes, width)
      .add(member.bytes, width)
      .take();
}

std::string ZipLayout::table_entry_of(const Member& member, std::uint32_t crc) const {
  const std::string field = long_field(member.bytes, member.header);
  return Bytes()
      .add(0x02014b50, 4)
      .add(0, 4)  // versions
      .add(kFlags, 2)
      .add(0, 2)
      .add(0, 4)
      .add(crc, 4)
      .add(std::min(member.bytes, kLong), 4)
      .add(std::min(member.bytes, kLong), 4)
      .add(member.name.size(), 2)
      .add(field.size(), 2)
      .add(0, 2)  // comment
      .add(0, 8)  // disk and attributes
      .add(std::min(member.header, kLong), 4)
      .add(member.name)
      .add(field)
      .take();
}

std::string ZipLayout::end_of(std::uint64_t table_bytes) const {
  constexpr std::uint64_t kMany = std::numeric_limits<std::uint16_t>::max();
  const std::uint64_t count = members_.size();
  return Bytes()
      .add(0x06064b50, 4)
      .add(44, 8)
      .add(0x031e, 2)  // made by: 3.0 on Unix
      .add(45, 2)      // needed: 4.5, for ZIP64
      .add(0, 8)       // disks
      .add(count, 8)
      .add(count, 8)
      .add(table_bytes, 8)
      .add(end_, 8)
      .add(0x07064b50, 4)
      .add(0, 4)
      .add(end_ + table_bytes, 8)
      .add(1, 4)
      .add(0x06054b50, 4)
      .add(0, 4)
      .add(std::min(count, kMany), 2)
      .add(std::min(count, kMany), 2)
      .add(std::min(table_bytes, kLong), 4)
      .add(std::min(end_, kLong), 4)
      .add(0, 2)
      .take();
}

std::uint64_t ZipLayout::file_bytes() const {
  std::uint64_t bytes = end_ + kEndBytes;
  for (const Member& member : members_) {
    bytes += kCentralBytes + member.name.size() + long_field(member.bytes, member.header).size();
  }
  return bytes;
}

std::vector<ZipLayout::Piece> ZipLayout::pieces(std::span<const std::uint32_t> crcs) const {
  std::vector<Piece> pieces;
  Piece piece;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    piece.bytes += header_of(members_[i]);
    pieces.push_back(std::move(piece));
    piece = {members_[i].data + members_[i].bytes, descriptor_of(members_[i], crcs[i])};
  }
  std::string table;
  for (std::size_t i = 0; i < members_.size(); ++i) table += table_entry_of(members_[i], crcs[i]);
  piece.bytes += table + end_of(table.size());
  pieces.push_back(std::move(piece));
  return pieces;
}

}  // namespace cairn::detail::torch
