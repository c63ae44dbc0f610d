#include "formats/hdf5/index.hpp"

#include <algorithm>
#include <cstring>

#include "base/bytes.hpp"
#include "plan/region.hpp"

namespace cairn::detail {
namespace {

constexpr char kMagic[8] = {'C', 'A', 'I', 'R', 'N', 'I', 'D', 'X'};

struct Header {
  char magic[8];
  std::uint32_t version;
  std::uint32_t flags;
  std::uint64_t tensors;
  std::uint64_t extents;
  std::uint64_t numbers;
  std::uint64_t name_bytes;
};
static_assert(sizeof(Header) == 48);

constexpr std::uint32_t kHasStatistics = 1;

struct TensorRecord {
  std::uint64_t name_start;   // into the names
  std::uint64_t shape_start;  // into the numbers; for chunked layout the chunk's shape follows
  std::uint64_t offset;
  std::uint64_t extent_start;
  std::uint64_t extent_count;
  std::uint32_t name_bytes;
  std::uint16_t rank;
  std::uint8_t dtype;
  std::uint8_t placement;
  std::uint8_t layout;
  std::uint8_t reserved[7];
};
static_assert(sizeof(TensorRecord) == 56);

struct ExtentRecord {
  std::uint64_t offset;
  std::uint64_t box_start;  // into the numbers: starts, then counts
  std::uint64_t digest;
  std::int32_t writer;
  std::uint8_t flat;
  std::uint8_t reserved[3];
};
static_assert(sizeof(ExtentRecord) == 32);

struct StatisticsRecord {
  std::uint64_t nan;
  std::uint64_t inf;
  double min;
  double max;
  double sum_squares;
};
static_assert(sizeof(StatisticsRecord) == 40);

Header header_for(const std::vector<TensorEntry>& tensors) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = 1;
  header.flags = !tensors.empty() && tensors.front().statistics ? kHasStatistics : 0;
  header.tensors = tensors.size();
  for (const TensorEntry& tensor : tensors) {
    header.extents += tensor.extents.size();
    header.numbers += tensor.shape.size() + tensor.chunk.size();
    for (const Extent& extent : tensor.extents) header.numbers += 2 * extent.box.start.size();
    header.name_bytes += tensor.name.size();
  }
  return header;
}

std::uint64_t bytes_of(const Header& header) {
  return sizeof(Header) + header.tensors * sizeof(TensorRecord) +
         header.extents * sizeof(ExtentRecord) + header.numbers * sizeof(std::uint64_t) +
         ((header.flags & kHasStatistics) != 0 ? header.tensors * sizeof(StatisticsRecord) : 0) +
         header.name_bytes;
}

/// The four tables of an index. Records refer to names, numbers and extents in order and use each
/// once, so that what is decoded is never larger than a small multiple of the index.
struct Tables {
  std::vector<TensorRecord> tensors;
  std::vector<ExtentRecord> extents;
  std::vector<std::uint64_t> numbers;
  std::vector<StatisticsRecord> statistics;  // one for each tensor, or none
  std::string_view names;

  std::string_view take_name(std::uint64_t start, std::uint64_t count) {
    check_order(start, count, names_used, names.size());
    return names.substr(start, count);
  }
  Shape take_numbers(std::uint64_t start, std::uint64_t count) {
    check_order(start, count, numbers_used, numbers.size());
    return {numbers.data() + start, numbers.data() + start + count};
  }
  std::span<const ExtentRecord> take_extents(std::uint64_t start, std::uint64_t count) {
    check_order(start, count, extents_used, extents.size());
    return std::span(extents).subspan(start, count);
  }
  void check_all_used() const {
    if (names_used != names.size() || numbers_used != numbers.size() ||
        extents_used != extents.size()) {
      fail(Errc::corrupt, "the index holds names, numbers or extents of no tensor");
    }
  }

 private:
  static void check_order(std::uint64_t start, std::uint64_t count, std::uint64_t& used,
                          std::uint64_t size) {
    if (start != used || count > size - used) {
      fail(Errc::corrupt, "a record of the index refers to parts that are not its own");
    }
    used += count;
  }

  std::uint64_t names_used = 0;
  std::uint64_t numbers_used = 0;
  std::uint64_t extents_used = 0;
};

template <class T>
std::vector<T> get_records(ByteReader& in, std::uint64_t count) {
  const auto raw = in.get_raw(count * sizeof(T));
  std::vector<T> records(count);
  if (count != 0) std::memcpy(records.data(), raw.data(), raw.size());
  return records;
}

Tables get_tables(std::span<const std::byte> bytes) {
  ByteReader in(bytes, "the index");
  const auto header = in.get<Header>();
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) {
    fail(Errc::corrupt, "the index does not start with its magic bytes");
  }
  if (header.version != 1) {
    fail(Errc::unsupported, "the index has version {}; this cairn reads version 1", header.version);
  }
  if ((header.flags & ~kHasStatistics) != 0) {
    fail(Errc::unsupported, "the index has parts that this cairn does not know (flags {:#x})",
         header.flags);
  }
  const std::uint64_t limit = bytes.size();
  if (header.tensors > limit || header.extents > limit || header.numbers > limit ||
      header.name_bytes > limit || bytes_of(header) != limit) {
    fail(Errc::corrupt, "the index's tables do not fill its {} bytes", limit);
  }
  Tables tables;
  tables.tensors = get_records<TensorRecord>(in, header.tensors);
  tables.extents = get_records<ExtentRecord>(in, header.extents);
  tables.numbers = get_records<std::uint64_t>(in, header.numbers);
  if ((header.flags & kHasStatistics) != 0) {
    tables.statistics = get_records<StatisticsRecord>(in, header.tensors);
  }
  const auto names = in.get_raw(header.name_bytes);
  tables.names = {reinterpret_cast<const char*>(names.data()), names.size()};
  // They reach terminals and other files: what a save refuses, a reader does not let in.
  if (std::any_of(tables.names.begin(), tables.names.end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; })) {
    fail(Errc::corrupt, "the index holds names with control characters");
  }
  return tables;
}

bool lies_in(const Box& box, const Shape& shape) {
  for (std::size_t d = 0; d < shape.size(); ++d) {
    if (box.start[d] > shape[d] || box.count[d] > shape[d] - box.start[d]) return false;
  }
  return true;
}

Extent decode_extent(Tables& tables, const ExtentRecord& record, const TensorEntry& tensor) {
  Extent extent;
  extent.offset = record.offset;
  extent.flat = record.flat != 0;
  if (extent.flat != (tensor.placement == Placement::Kind::flat)) {
    fail(Errc::corrupt, "the index mixes boxes and flat ranges in tensor '{}'", tensor.name);
  }
  const std::size_t rank = extent.flat ? 1 : tensor.shape.size();
  extent.box.start = tables.take_numbers(record.box_start, rank);
  extent.box.count = tables.take_numbers(record.box_start + rank, rank);
  if (!lies_in(extent.box, extent.flat ? Shape{element_count(tensor.shape)} : tensor.shape)) {
    fail(Errc::corrupt, "the index places {} outside of tensor '{}'", to_string(extent.box),
         tensor.name);
  }
  if (tensor.layout == Layout::contiguous && extent.box.elements() != 0 &&
      extent.offset != offset_in_rows(tensor, extent)) {
    fail(Errc::corrupt, "the index places {} of tensor '{}' at byte {}, where it can't be",
         to_string(extent.box), tensor.name, extent.offset);
  }
  extent.digest = record.digest;
  extent.writer = record.writer;
  return extent;
}

TensorEntry decode_tensor(Tables& tables, const TensorRecord& record) {
  if (record.placement > 2 || record.layout > 1) {
    fail(Errc::corrupt, "a tensor's record in the index is out of range");
  }
  TensorEntry tensor;
  tensor.name = tables.take_name(record.name_start, record.name_bytes);
  tensor.dtype = dtype_from_code(record.dtype);
  tensor.shape = tables.take_numbers(record.shape_start, record.rank);
  tensor.placement = static_cast<Placement::Kind>(record.placement);
  tensor.layout = static_cast<Layout>(record.layout);
  tensor.offset = record.offset;
  if (tensor.layout == Layout::chunked) {
    tensor.chunk = tables.take_numbers(record.shape_start + record.rank, record.rank);
  }
  element_count(tensor.shape);  // throws when it overflows
  const auto extents = tables.take_extents(record.extent_start, record.extent_count);
  tensor.extents.reserve(extents.size());
  for (const ExtentRecord& extent : extents) {
    tensor.extents.push_back(decode_extent(tables, extent, tensor));
  }
  return tensor;
}

}  // namespace

std::uint64_t index_bytes(const std::vector<TensorEntry>& tensors) {
  return bytes_of(header_for(tensors));
}

std::vector<std::byte> encode_index(const std::vector<TensorEntry>& tensors) {
  ByteWriter records;
  ByteWriter extents;
  std::vector<std::uint64_t> numbers;
  std::string names;
  std::uint64_t extent_count = 0;
  const auto add_numbers = [&](const Shape& shape) {
    numbers.insert(numbers.end(), shape.begin(), shape.end());
  };
  for (const TensorEntry& tensor : tensors) {
    TensorRecord record{};
    record.name_start = names.size();
    record.name_bytes = static_cast<std::uint32_t>(tensor.name.size());
    record.shape_start = numbers.size();
    record.rank = static_cast<std::uint16_t>(tensor.shape.size());
    record.offset = tensor.offset;
    record.extent_start = extent_count;
    record.extent_count = tensor.extents.size();
    record.dtype = static_cast<std::uint8_t>(tensor.dtype);
    record.placement = static_cast<std::uint8_t>(tensor.placement);
    record.layout = static_cast<std::uint8_t>(tensor.layout);
    records.put(record);
    names += tensor.name;
    add_numbers(tensor.shape);
    add_numbers(tensor.chunk);
    for (const Extent& extent : tensor.extents) {
      ExtentRecord line{};
      line.offset = extent.offset;
      line.box_start = numbers.size();
      line.digest = extent.digest.value_or(0);
      line.writer = extent.writer;
      line.flat = extent.flat ? 1 : 0;
      extents.put(line);
      add_numbers(extent.box.start);
      add_numbers(extent.box.count);
    }
    extent_count += tensor.extents.size();
  }
  const Header header = header_for(tensors);
  ByteWriter out;
  out.put(header);
  out.put_raw(records.take());
  out.put_raw(extents.take());
  out.put_raw(std::as_bytes(std::span(numbers)));
  if ((header.flags & kHasStatistics) != 0) {
    for (const TensorEntry& tensor : tensors) {
      const Statistics s = tensor.statistics.value_or(Statistics{});
      out.put(StatisticsRecord{s.nan, s.inf, s.min, s.max, s.sum_squares});
    }
  }
  out.put_raw(std::as_bytes(std::span(names)));
  return out.take();
}

std::vector<TensorEntry> decode_index(std::span<const std::byte> bytes) {
  Tables tables = get_tables(bytes);
  std::vector<TensorEntry> tensors;
  tensors.reserve(tables.tensors.size());
  for (const TensorRecord& record : tables.tensors) {
    TensorEntry& tensor = tensors.emplace_back(decode_tensor(tables, record));
    if (tables.statistics.empty()) continue;
    const StatisticsRecord& s = tables.statistics[tensors.size() - 1];
    tensor.statistics = Statistics{s.nan, s.inf, s.min, s.max, s.sum_squares};
  }
  tables.check_all_used();
  if (const auto twice = TensorNames(tensors).duplicate()) {
    fail(Errc::corrupt, "the index lists tensor '{}' twice", *twice);
  }
  return tensors;
}

}  // namespace cairn::detail
