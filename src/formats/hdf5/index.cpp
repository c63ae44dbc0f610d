#include "formats/hdf5/index.hpp"

#include <algorithm>
#include <cstring>

#include "base/bytes.hpp"
#include "formats/hdf5/index_records.hpp"
#include "plan/chunks.hpp"
#include "plan/region.hpp"
#include "plan/tiling.hpp"

namespace cairn::detail {
namespace {

IndexHeader header_for(const std::vector<TensorEntry>& tensors,
                       const std::vector<ReferencedFile>& files) {
  IndexHeader header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = 1;
  header.flags = !tensors.empty() && tensors.front().statistics ? kHasStatistics : 0;
  header.tensors = tensors.size();
  for (const TensorEntry& tensor : tensors) {
    header.extents += tensor.extents.size();
    header.numbers += tensor.shape.size() + tensor.chunk.size();
    for (const Extent& extent : tensor.extents) header.numbers += 2 * extent.box.start.size();
    if (tensor.filters != 0) {
      header.flags |= kHasFilters;
      header.numbers += 2 * chunk_count(tensor);
    }
    header.name_bytes += tensor.name.size();
  }
  if (!files.empty()) header.flags |= kHasFiles;
  for (const ReferencedFile& file : files) header.name_bytes += file.name.size();
  return header;
}

}  // namespace

std::uint64_t index_bytes(const std::vector<TensorEntry>& tensors,
                          const std::vector<ReferencedFile>& files) {
  return bytes_of(header_for(tensors, files), files.size());
}

std::vector<std::byte> encode_index(const std::vector<TensorEntry>& tensors,
                                    const std::vector<ReferencedFile>& files) {
  const IndexHeader header = header_for(tensors, files);
  ByteWriter records;
  ByteWriter extents;
  std::vector<std::uint64_t> numbers;
  std::string names;
  records.reserve(header.tensors * sizeof(TensorRecord));
  extents.reserve(header.extents * sizeof(ExtentRecord));
  numbers.reserve(header.numbers);
  names.reserve(header.name_bytes);
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
    record.filters = tensor.filters;
    record.file = file_of(tensor);
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
    for (const StoredChunk& chunk : tensor.stored) {
      numbers.push_back(chunk.offset);
      numbers.push_back(std::uint64_t{chunk.skipped} << 32 | chunk.bytes);
    }
  }
  ByteWriter out;
  out.reserve(bytes_of(header, files.size()));
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
  if (!files.empty()) {
    out.put(static_cast<std::uint64_t>(files.size()));
    for (const ReferencedFile& file : files) {
      out.put(FileRecord{file.bytes, file.fingerprint, static_cast<std::uint32_t>(file.writers),
                         static_cast<std::uint32_t>(file.name.size())});
      names += file.name;
    }
  }
  out.put_raw(std::as_bytes(std::span(names)));
  return out.take();
}

std::vector<TensorEntry> decode_index(std::span<const std::byte> bytes) {
  IndexTables tables(bytes);
  tables.check_names();
  std::vector<TensorEntry> tensors;
  tensors.reserve(tables.tensors.size());
  for (const TensorRecord& record : tables.tensors) {
    TensorEntry& tensor = tensors.emplace_back(decode_tensor(tables, record));
    if (tables.statistics.empty()) continue;
    const StatisticsRecord& s = tables.statistics[tensors.size() - 1];
    tensor.statistics = Statistics{s.nan, s.inf, s.min, s.max, s.sum_squares};
  }
  tables.take_file_names();
  tables.check_all_used();
  if (const auto twice = TensorNames(tensors).duplicate()) {
    fail(Errc::corrupt, "the index lists tensor '{}' twice", *twice);
  }
  return tensors;
}

namespace {

bool is_writer(std::int32_t writer, int writers) { return writer >= 0 && writer < writers; }

/// Whether the tensor is one whole extent of a contiguous one, as most are, and right; takes its
/// parts then. Anything else is left to decode_tensor.
bool take_plain(IndexTables& tables, const TensorRecord& record, int writers) {
  if (record.rank > kMostRank || record.extent_count != 1 || record.layout != 0 ||
      record.filters != 0 || record.placement > 2 || record.extent_start >= tables.extents.size()) {
    return false;
  }
  const ExtentRecord& extent = tables.extents[record.extent_start];
  const bool flat = extent.flat != 0;
  const std::size_t rank = record.rank;
  const std::size_t box_rank = flat ? 1 : rank;
  const auto shape = tables.numbers_at(record.shape_start, rank);
  const auto start = tables.numbers_at(extent.box_start, box_rank);
  const auto count = tables.numbers_at(extent.box_start + box_rank, box_rank);
  dtype_from_code(record.dtype);
  const std::uint64_t elements = element_count(Shape(shape.begin(), shape.end()));
  if (flat != (record.placement == 2) || elements == 0 || extent.offset != record.offset ||
      !is_writer(extent.writer, writers) ||
      std::any_of(start.begin(), start.end(), [](std::uint64_t s) { return s != 0; }) ||
      !(flat ? count[0] == elements : std::equal(count.begin(), count.end(), shape.begin()))) {
    return false;
  }
  tables.take_name(record.name_start, record.name_bytes);
  tables.take_numbers(record.shape_start, rank);
  tables.take_extents(record.extent_start, 1);
  tables.take_numbers(extent.box_start, 2 * box_rank);
  return true;
}

void check_tensor(const TensorEntry& tensor, int writers) {
  for (const Extent& extent : tensor.extents) {
    if (is_writer(extent.writer, writers)) continue;
    fail(Errc::corrupt, "its index names rank {} of {} writers for tensor '{}'", extent.writer,
         writers, tensor.name);
  }
  try {
    check_tiling(tensor);
  } catch (const Error& error) {
    fail(Errc::corrupt, "its index contradicts itself: {}", error.what());
  }
}

}  // namespace

void check_index(std::span<const std::byte> bytes, int writers) {
  IndexTables tables(bytes);
  tables.check_names();
  for (const TensorRecord& record : tables.tensors) {
    const int of_file = tables.writers_of(record, writers);
    if (take_plain(tables, record, of_file)) continue;
    check_tensor(decode_tensor(tables, record), of_file);
  }
  tables.take_file_names();
  tables.check_all_used();
  std::vector<std::string_view> names;
  names.reserve(tables.tensors.size());
  for (const TensorRecord& record : tables.tensors) names.push_back(tables.name_of(record));
  if (const auto twice = TensorNames(std::move(names)).duplicate()) {
    fail(Errc::corrupt, "the index lists tensor '{}' twice", *twice);
  }
}

std::vector<ReferencedFile> files_of_index(std::span<const std::byte> bytes) {
  const IndexTables tables(bytes);
  std::uint64_t at = tables.names.size();
  for (const FileRecord& file : tables.files) {
    if (file.name_bytes > at) fail(Errc::corrupt, "the index has no names for its files");
    at -= file.name_bytes;
  }
  std::vector<ReferencedFile> files;
  for (const FileRecord& file : tables.files) {
    std::string name(tables.names.substr(at, file.name_bytes));
    // A name that leads elsewhere would let a file tell which others are read.
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos) {
      fail(Errc::corrupt, "the index refers to '{}', which is no name of a file beside it", name);
    }
    files.push_back({std::move(name), file.bytes, file.fingerprint, writers_in(file)});
    at += file.name_bytes;
  }
  return files;
}

IndexTable::IndexTable(std::vector<std::byte> bytes)
    : bytes_(std::move(bytes)), tables_(std::make_unique<IndexTables>(bytes_)) {}
IndexTable::~IndexTable() = default;

std::size_t IndexTable::size() const { return tables_->tensors.size(); }

TensorHead IndexTable::head(std::size_t position) const {
  const TensorRecord& record = tables_->tensors[position];
  TensorHead head;
  head.name = tables_->name_of(record);
  head.dtype = dtype_from_code(record.dtype);
  head.shape = tables_->numbers_at(record.shape_start, record.rank);
  head.layout = record.layout == 0 ? Layout::contiguous : Layout::chunked;
  head.offset = record.offset;
  head.file = record.file;
  return head;
}

std::uint64_t IndexTable::content_digest(std::size_t position) const {
  const TensorRecord& record = tables_->tensors[position];
  std::uint64_t together = 0;
  for (std::uint64_t e = 0; e < record.extent_count; ++e) {
    together ^= tables_->extents[record.extent_start + e].digest;
  }
  return ~together;
}

bool IndexTable::has_statistics() const { return !tables_->statistics.empty(); }

std::vector<TensorEntry> IndexTable::decode() const { return decode_index(bytes_); }

}  // namespace cairn::detail
