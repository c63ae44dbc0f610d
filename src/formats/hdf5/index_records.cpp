#include "formats/hdf5/index_records.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/bytes.hpp"
#include "plan/chunks.hpp"

namespace cairn::detail {
namespace {

void check_order(std::uint64_t start, std::uint64_t count, std::uint64_t& used,
                 std::uint64_t size) {
  if (start != used || count > size - used) {
    fail(Errc::corrupt, "a record of the index refers to parts that are not its own");
  }
  used += count;
}

/// The next records, where they lie.
template <class T>
std::span<const T> get_records(ByteReader& in, std::uint64_t count) {
  const auto raw = in.get_raw(count * sizeof(T));
  return {reinterpret_cast<const T*>(raw.data()), count};
}

Shape shape_of(std::span<const std::uint64_t> numbers) { return {numbers.begin(), numbers.end()}; }

bool lies_in(const Box& box, const Shape& shape) {
  for (std::size_t d = 0; d < shape.size(); ++d) {
    if (box.start[d] > shape[d] || box.count[d] > shape[d] - box.start[d]) return false;
  }
  return true;
}

Extent decode_extent(IndexTables& tables, const ExtentRecord& record, const TensorEntry& tensor,
                     std::uint32_t file) {
  Extent extent;
  extent.offset = record.offset;
  extent.flat = record.flat != 0;
  if (extent.flat != (tensor.placement == Placement::Kind::flat)) {
    fail(Errc::corrupt, "the index mixes boxes and flat ranges in tensor '{}'", tensor.name);
  }
  const std::size_t rank = extent.flat ? 1 : tensor.shape.size();
  extent.box.start = shape_of(tables.take_numbers(record.box_start, rank));
  extent.box.count = shape_of(tables.take_numbers(record.box_start + rank, rank));
  if (!lies_in(extent.box, extent.flat ? Shape{element_count(tensor.shape)} : tensor.shape)) {
    fail(Errc::corrupt, "the index places {} outside of tensor '{}'", to_string(extent.box),
         tensor.name);
  }
  if (tensor.layout == Layout::contiguous && extent.box.elements() != 0 &&
      extent.offset != offset_in_rows(tensor, extent)) {
    fail(Errc::corrupt, "the index places {} of tensor '{}' at byte {}, where it can't be",
         to_string(extent.box), tensor.name, extent.offset);
  }
  extent.file = file;
  extent.digest = record.digest;
  extent.writer = record.writer;
  return extent;
}

void decode_stored(IndexTables& tables, TensorEntry& tensor) {
  constexpr std::uint64_t kLow = 0xffffffff;
  const std::uint64_t chunks = chunk_count(tensor);
  if (chunks > tables.numbers.size()) {
    fail(Errc::corrupt, "the index has no places for the {} chunks of tensor '{}'", chunks,
         tensor.name);
  }
  const auto numbers = tables.next_numbers(2 * chunks);
  for (std::size_t c = 0; c < chunks; ++c) {
    tensor.stored.push_back({numbers[2 * c], static_cast<std::uint32_t>(numbers[2 * c + 1] & kLow),
                             static_cast<std::uint32_t>(numbers[2 * c + 1] >> 32)});
  }
}

}  // namespace

IndexTables::IndexTables(std::span<const std::byte> bytes) {
  ByteReader in(bytes, "the index");
  const auto header = in.get<IndexHeader>();
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) {
    fail(Errc::corrupt, "the index does not start with its magic bytes");
  }
  if (header.version != 1) {
    fail(Errc::unsupported, "the index has version {}; this cairn reads version 1", header.version);
  }
  if ((header.flags & ~(kHasStatistics | kHasFilters | kHasFiles)) != 0) {
    fail(Errc::unsupported, "the index has parts that this cairn does not know (flags {:#x})",
         header.flags);
  }
  const std::uint64_t limit = bytes.size();
  if (header.tensors > limit || header.extents > limit || header.numbers > limit ||
      header.name_bytes > limit || bytes_of(header, 0) > limit) {
    fail(Errc::corrupt, "the index's tables do not fill its {} bytes", limit);
  }
  tensors = get_records<TensorRecord>(in, header.tensors);
  extents = get_records<ExtentRecord>(in, header.extents);
  numbers = get_records<std::uint64_t>(in, header.numbers);
  if ((header.flags & kHasStatistics) != 0) {
    statistics = get_records<StatisticsRecord>(in, header.tensors);
  }
  if ((header.flags & kHasFiles) != 0) {
    const auto count = in.get<std::uint64_t>();
    if (count > limit) fail(Errc::corrupt, "the index's tables do not fill its {} bytes", limit);
    files = get_records<FileRecord>(in, count);
  }
  if (bytes_of(header, files.size()) != limit) {
    fail(Errc::corrupt, "the index's tables do not fill its {} bytes", limit);
  }
  const auto text = in.get_raw(header.name_bytes);
  names = {reinterpret_cast<const char*>(text.data()), text.size()};
}

std::string_view IndexTables::take_name(std::uint64_t start, std::uint64_t count) {
  check_order(start, count, names_used_, names.size());
  return names.substr(start, count);
}

std::span<const std::uint64_t> IndexTables::take_numbers(std::uint64_t start, std::uint64_t count) {
  check_order(start, count, numbers_used_, numbers.size());
  return numbers.subspan(start, count);
}

std::span<const std::uint64_t> IndexTables::next_numbers(std::uint64_t count) {
  return take_numbers(numbers_used_, count);
}

std::span<const ExtentRecord> IndexTables::take_extents(std::uint64_t start, std::uint64_t count) {
  check_order(start, count, extents_used_, extents.size());
  return extents.subspan(start, count);
}

int writers_in(const FileRecord& file) {
  return static_cast<int>(std::min<std::uint32_t>(file.writers, std::numeric_limits<int>::max()));
}

void IndexTables::take_file_names() {
  for (const FileRecord& file : files) take_name(names_used_, file.name_bytes);
}

int IndexTables::writers_of(const TensorRecord& record, int own) const {
  if (record.file == 0) return own;
  if (record.file > files.size()) {
    fail(Errc::corrupt, "the index places a tensor in file {} of {}", record.file, files.size());
  }
  return writers_in(files[record.file - 1]);
}

void IndexTables::check_all_used() const {
  if (names_used_ != names.size() || numbers_used_ != numbers.size() ||
      extents_used_ != extents.size()) {
    fail(Errc::corrupt, "the index holds names, numbers or extents of no tensor");
  }
}

void IndexTables::check_names() const {
  if (std::any_of(names.begin(), names.end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; })) {
    fail(Errc::corrupt, "the index holds names with control characters");
  }
}

std::string_view IndexTables::name_of(const TensorRecord& record) const {
  if (record.name_start > names.size() || record.name_bytes > names.size() - record.name_start) {
    fail(Errc::corrupt, "a name in the index lies outside of it");
  }
  return names.substr(record.name_start, record.name_bytes);
}

std::span<const std::uint64_t> IndexTables::numbers_at(std::uint64_t start,
                                                       std::uint64_t count) const {
  if (start > numbers.size() || count > numbers.size() - start) {
    fail(Errc::corrupt, "a shape in the index lies outside of it");
  }
  return numbers.subspan(start, count);
}

TensorEntry decode_tensor(IndexTables& tables, const TensorRecord& record) {
  if (record.rank > kMostRank || record.placement > 2 || record.layout > 1 ||
      record.filters > (kShuffled | kDeflated) || (record.filters != 0 && record.layout == 0)) {
    fail(Errc::corrupt, "a tensor's record in the index is out of range");
  }
  TensorEntry tensor;
  tensor.name = tables.take_name(record.name_start, record.name_bytes);
  tensor.dtype = dtype_from_code(record.dtype);
  tensor.shape = shape_of(tables.take_numbers(record.shape_start, record.rank));
  tensor.placement = static_cast<Placement::Kind>(record.placement);
  tensor.layout = static_cast<Layout>(record.layout);
  tensor.offset = record.offset;
  tensor.filters = record.filters;
  if (tensor.layout == Layout::chunked) {
    tensor.chunk = shape_of(tables.take_numbers(record.shape_start + record.rank, record.rank));
  }
  element_count(tensor.shape);  // throws when it overflows
  tables.writers_of(record, 0);
  const auto extents = tables.take_extents(record.extent_start, record.extent_count);
  tensor.extents.reserve(extents.size());
  for (const ExtentRecord& extent : extents) {
    tensor.extents.push_back(decode_extent(tables, extent, tensor, record.file));
  }
  if (tensor.filters != 0) decode_stored(tables, tensor);
  return tensor;
}

}  // namespace cairn::detail
