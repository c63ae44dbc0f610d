#include "formats/torch/zip.hpp"

#include <algorithm>
#include <cstring>
#include <span>
#include <type_traits>

#include "base/text.hpp"
#include "base/throw.hpp"

namespace cairn::detail {
namespace {

constexpr std::uint64_t kEndBytes = 22;
constexpr std::uint64_t kEnd64Bytes = 56;
constexpr std::uint64_t kLocatorBytes = 20;
constexpr std::uint64_t kCentralBytes = 46;
constexpr std::uint64_t kLocalBytes = 30;
constexpr std::uint64_t kMostTableBytes = 128 << 20;
constexpr std::uint32_t kLong = 0xffffffff;  // the number is in the ZIP64 record

template <class T>
T at(std::span<const std::byte> bytes, std::size_t position) {
  T value;
  std::memcpy(&value, bytes.data() + position, sizeof(T));
  return value;
}

std::string_view text_at(std::span<const std::byte> bytes, std::size_t position,
                         std::size_t count) {
  return {reinterpret_cast<const char*>(bytes.data()) + position, count};
}

/// Where the table is, from the start of the archive.
struct Place {
  std::uint64_t start = 0;
  std::uint64_t bytes = 0;
  std::uint64_t members = 0;
};

/// Reads within the archive, never outside it. Its last bytes, in which the end record must lie,
/// are read once: small archives, of which a distributed checkpoint has one for each part of a
/// tensor, cost one request.
class Window {
 public:
  /// Of an archive that is in memory as a whole.
  Window(std::vector<std::byte> archive, std::uint64_t begin)
      : begin_(begin), bytes_(archive.size()), tail_(std::move(archive)) {}
  Window(const File& file, std::uint64_t begin, std::uint64_t bytes)
      : file_(&file), begin_(begin), bytes_(bytes) {
    constexpr std::uint64_t kMostComment = 0xffff;
    tail_.resize(std::min(bytes, kEndBytes + kMostComment));
    file_->read_at(begin_ + tail_start(), tail_);
  }

  std::uint64_t begin() const { return begin_; }
  std::uint64_t bytes() const { return bytes_; }
  std::span<const std::byte> tail() const { return tail_; }
  std::uint64_t tail_start() const { return bytes_ - tail_.size(); }
  /// Bytes of the archive. Lifetime: until `room` changes.
  std::span<const std::byte> read(std::uint64_t position, std::uint64_t count,
                                  std::vector<std::byte>& room) const {
    if (position > bytes_ || count > bytes_ - position) fail(Errc::corrupt, "it ends early");
    if (position >= tail_start()) return tail().subspan(position - tail_start(), count);
    room.resize(count);
    file_->read_at(begin_ + position, room);
    return room;
  }
  std::vector<std::byte> take_tail() && { return std::move(tail_); }

 private:
  const File* file_ = nullptr;
  std::uint64_t begin_;
  std::uint64_t bytes_;
  std::vector<std::byte> tail_;
};

/// The position of the end record: the one whose comment ends with the archive.
std::uint64_t find_end(const Window& window) {
  const std::span<const std::byte> tail = window.tail();
  const std::string_view text = text_at(tail, 0, tail.size());
  constexpr std::string_view kSignature = "PK\x05\x06";
  std::optional<std::uint64_t> found;
  for (auto p = text.find(kSignature); p != text.npos; p = text.find(kSignature, p + 1)) {
    if (p + kEndBytes > tail.size()) break;
    if (p + kEndBytes + at<std::uint16_t>(tail, p + 20) != tail.size()) continue;
    if (found) fail(Errc::corrupt, "the zip archive has two ends");
    found = p;
  }
  if (!found) {
    fail(Errc::corrupt, "the zip archive has no end: it was cut off, or something follows it");
  }
  return window.tail_start() + *found;
}

Place find_table(const Window& window) {
  const std::uint64_t end = find_end(window);
  std::vector<std::byte> room;
  const auto record = window.tail().subspan(end - window.tail_start(), kEndBytes);
  Place place{at<std::uint32_t>(record, 16), at<std::uint32_t>(record, 12),
              at<std::uint16_t>(record, 10)};
  std::uint64_t table_end = end;
  std::uint32_t disk = at<std::uint16_t>(record, 4);
  std::uint32_t table_disk = at<std::uint16_t>(record, 6);
  std::uint64_t here = at<std::uint16_t>(record, 8);
  const bool has_locator =
      end >= kLocatorBytes &&
      at<std::uint32_t>(window.read(end - kLocatorBytes, kLocatorBytes, room), 0) == 0x07064b50;
  if (has_locator) {
    const auto locator = window.read(end - kLocatorBytes, kLocatorBytes, room);
    const auto position = at<std::uint64_t>(locator, 8);
    const auto record64 = window.read(position, kEnd64Bytes, room);
    const auto record_bytes = at<std::uint64_t>(record64, 4);
    if (at<std::uint32_t>(record64, 0) != 0x06064b50 || record_bytes < kEnd64Bytes - 12 ||
        record_bytes > window.bytes() || position + 12 + record_bytes != end - kLocatorBytes) {
      fail(Errc::corrupt, "the zip archive's ZIP64 record is broken");
    }
    disk = at<std::uint32_t>(record64, 16);
    table_disk = at<std::uint32_t>(record64, 20);
    here = at<std::uint64_t>(record64, 24);
    place = {at<std::uint64_t>(record64, 48), at<std::uint64_t>(record64, 40),
             at<std::uint64_t>(record64, 32)};
    table_end = position;
  }
  if (disk != 0 || table_disk != 0 || here != place.members) {
    fail(Errc::unsupported, "it is one of several parts of a zip archive: join them first");
  }
  if (place.start > table_end || place.bytes != table_end - place.start) {
    fail(Errc::corrupt, "the zip archive's table is not where its end says");
  }
  if (place.bytes > kMostTableBytes) {
    fail(Errc::unsafe, "the zip archive's table has {} bytes; at most {} are read", place.bytes,
         kMostTableBytes);
  }
  return place;
}

void check_name(std::string_view name) {
  const bool drive = name.size() > 1 && name[1] == ':';
  if (leaves_directory(name) || drive || name.find('\\') != name.npos) {
    fail(Errc::unsafe, "the zip archive has a member whose name leaves it: '{}'", name);
  }
}

/// Takes the numbers that a header had no room for from its ZIP64 field, in their order.
void take_long(std::span<const std::byte> extra, std::string_view name,
               std::initializer_list<std::uint64_t*> numbers) {
  for (std::size_t p = 0; p + 4 <= extra.size();) {
    const auto id = at<std::uint16_t>(extra, p);
    const std::size_t count = at<std::uint16_t>(extra, p + 2);
    p += 4;
    if (count > extra.size() - p) break;
    if (id == 1) {
      std::size_t from = p;
      for (std::uint64_t* number : numbers) {
        if (*number != kLong) continue;
        if (from + 8 > p + count) fail(Errc::corrupt, "zip member '{}' has a broken header", name);
        *number = at<std::uint64_t>(extra, from);
        from += 8;
      }
      return;
    }
    p += count;
  }
}

/// A member, with the position of its local header, from the start of the archive, as its offset.
ZipMember read_central(std::span<const std::byte> table, std::size_t& position) {
  if (table.size() - position < kCentralBytes || at<std::uint32_t>(table, position) != 0x02014b50) {
    fail(Errc::corrupt, "the zip archive's table ends early");
  }
  const auto header = table.subspan(position);
  const std::size_t name_bytes = at<std::uint16_t>(header, 28);
  const std::size_t extra_bytes = at<std::uint16_t>(header, 30);
  const std::size_t comment_bytes = at<std::uint16_t>(header, 32);
  const std::size_t all = kCentralBytes + name_bytes + extra_bytes + comment_bytes;
  if (header.size() < all) fail(Errc::corrupt, "the zip archive's table ends early");
  position += all;

  ZipMember member;
  member.name = text_at(header, kCentralBytes, name_bytes);
  check_name(member.name);
  member.method = at<std::uint16_t>(header, 10);
  member.crc = at<std::uint32_t>(header, 16);
  member.bytes = at<std::uint32_t>(header, 20);
  member.unpacked_bytes = at<std::uint32_t>(header, 24);
  member.offset = at<std::uint32_t>(header, 42);
  take_long(header.subspan(kCentralBytes + name_bytes, extra_bytes), member.name,
            {&member.unpacked_bytes, &member.bytes, &member.offset});
  if ((at<std::uint16_t>(header, 8) & 1) != 0) {
    fail(Errc::unsupported, "zip member '{}' is encrypted", member.name);
  }
  if (member.method == 0 && member.bytes != member.unpacked_bytes) {
    fail(Errc::corrupt, "zip member '{}' has two sizes: {} and {}", member.name, member.bytes,
         member.unpacked_bytes);
  }
  return member;
}

/// Reads small pieces in ascending order with few requests.
class Headers {
 public:
  Headers(const Window& window, std::uint64_t end) : window_(window), end_(end) {}

  std::span<const std::byte> get(std::uint64_t position, std::uint64_t count) {
    if (position > end_ || count > end_ - position) {
      fail(Errc::corrupt, "the zip archive's table points behind its data");
    }
    if (position < start_ || position + count > start_ + bytes_.size()) {
      // Small members lie close together, the headers of large ones far apart.
      const std::uint64_t ahead = position - start_ < 4 * kAhead ? kAhead : 512;
      start_ = position;
      bytes_ = window_.read(position, std::min(std::max(count, ahead), end_ - position), room_);
    }
    return bytes_.subspan(position - start_, count);
  }

 private:
  static constexpr std::uint64_t kAhead = 64 << 10;
  const Window& window_;
  std::uint64_t end_;
  std::uint64_t start_ = 0;
  std::span<const std::byte> bytes_;  // from there on
  std::vector<std::byte> room_;
};

/// Turns the position of a member's local header into that of its data, and checks that header.
/// Returns where the data ends.
std::uint64_t settle(ZipMember& member, Headers& headers, std::uint64_t data_end) {
  const auto header = headers.get(member.offset, kLocalBytes);
  if (at<std::uint32_t>(header, 0) != 0x04034b50) {
    fail(Errc::corrupt, "zip member '{}' has no header where the table says", member.name);
  }
  const auto flags = at<std::uint16_t>(header, 6);
  const auto method = at<std::uint16_t>(header, 8);
  const auto bytes = at<std::uint32_t>(header, 18);
  const std::size_t name_bytes = at<std::uint16_t>(header, 26);
  const std::size_t extra_bytes = at<std::uint16_t>(header, 28);
  const auto name = headers.get(member.offset + kLocalBytes, name_bytes);
  const bool described = (flags & 8) != 0;  // its sizes are behind the data
  const bool sized = described || bytes == kLong || bytes == member.bytes;
  if (text_at(name, 0, name_bytes) != member.name || method != member.method || !sized) {
    fail(Errc::corrupt, "zip member '{}' has a header that contradicts the table", member.name);
  }
  member.offset += kLocalBytes + name_bytes + extra_bytes;
  if (member.offset > data_end || member.bytes > data_end - member.offset) {
    fail(Errc::corrupt, "zip member '{}' ends behind the archive's data", member.name);
  }
  return member.offset + member.bytes;
}

/// Whether torch.save writes such a member: others may be added to the archive afterwards.
bool is_pytorchs(std::string_view name) {
  name.remove_prefix(std::min(name.size(), name.find('/') + 1));
  return name == "data.pkl" || name.starts_with("data/") || name.starts_with(".data/") ||
         name == "version" || name == "byteorder";
}

/// No CRC is 0 by chance for all members.
void forget_missing_crcs(std::vector<ZipMember>& members) {
  const auto counts = [](const ZipMember& member) {
    return member.unpacked_bytes > 0 && is_pytorchs(member.name);
  };
  const bool missing = std::all_of(members.begin(), members.end(), [&](const ZipMember& member) {
    return !counts(member) || member.crc == 0U;
  });
  if (!missing) return;
  for (ZipMember& member : members) {
    if (counts(member)) member.crc.reset();
  }
}

/// All members, checked, sorted by name.
std::vector<ZipMember> members_of(const Window& window) {
  const Place place = find_table(window);
  std::vector<std::byte> room;
  const auto table = window.read(place.start, place.bytes, room);
  std::vector<ZipMember> members;
  members.reserve(std::min(place.members, table.size() / kCentralBytes));
  std::size_t position = 0;
  while (position < table.size()) members.push_back(read_central(table, position));
  if (members.size() != place.members) {
    fail(Errc::corrupt, "the zip archive has {} members instead of {}", members.size(),
         place.members);
  }
  const auto by_offset = [](const ZipMember& a, const ZipMember& b) { return a.offset < b.offset; };
  if (!std::is_sorted(members.begin(), members.end(), by_offset)) {
    std::sort(members.begin(), members.end(), by_offset);
  }
  Headers headers(window, place.start);
  std::uint64_t end = 0;
  for (ZipMember& member : members) {
    if (member.offset < end) {
      fail(Errc::corrupt, "zip member '{}' overlaps another one", member.name);
    }
    end = settle(member, headers, place.start);
    member.offset += window.begin();
  }
  std::sort(members.begin(), members.end(),
            [](const ZipMember& a, const ZipMember& b) { return a.name < b.name; });
  const auto twice =
      std::adjacent_find(members.begin(), members.end(),
                         [](const ZipMember& a, const ZipMember& b) { return a.name == b.name; });
  if (twice != members.end()) {
    fail(Errc::corrupt, "the zip archive has two members '{}'", twice->name);
  }
  forget_missing_crcs(members);
  return members;
}

}  // namespace

ZipTable ZipTable::read(const File& file, std::uint64_t begin, std::uint64_t bytes) {
  ZipTable table;
  Window window(file, begin, bytes);
  table.members_ = members_of(window);
  table.tail_start_ = begin + window.tail_start();
  table.tail_ = std::move(window).take_tail();
  return table;
}

ZipTable ZipTable::read(std::vector<std::byte> archive, std::uint64_t begin) {
  ZipTable table;
  Window window(std::move(archive), begin);
  table.members_ = members_of(window);
  table.tail_start_ = begin;
  table.tail_ = std::move(window).take_tail();
  return table;
}

const ZipMember* ZipTable::find(std::string_view name) const {
  const auto it =
      std::lower_bound(members_.begin(), members_.end(), name,
                       [](const ZipMember& m, std::string_view wanted) { return m.name < wanted; });
  return it != members_.end() && it->name == name ? &*it : nullptr;
}

}  // namespace cairn::detail
