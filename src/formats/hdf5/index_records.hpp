#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "cairn/manifest.hpp"
#include "plan/region.hpp"
#include "plan/save_plan.hpp"

namespace cairn::detail {

/// The records of `/index` (docs/format.md, "Index"), as they lie in the file.

inline constexpr char kMagic[8] = {'C', 'A', 'I', 'R', 'N', 'I', 'D', 'X'};

struct IndexHeader {
  char magic[8];
  std::uint32_t version;
  std::uint32_t flags;
  std::uint64_t tensors;
  std::uint64_t extents;
  std::uint64_t numbers;
  std::uint64_t name_bytes;
};
static_assert(sizeof(IndexHeader) == 48);

inline constexpr std::uint32_t kHasStatistics = 1;
inline constexpr std::uint32_t kHasFilters = 2;  ///< of some tensors; a reader must know them
inline constexpr std::uint32_t kHasFiles = 4;    ///< some tensors lie in other containers

struct TensorRecord {
  std::uint64_t name_start;  // into the names
  // Into the numbers; for chunked layout the chunk's shape follows. With filters, two numbers for
  // each chunk come behind the boxes of the extents: offset; bytes, and in bits 32 to 63 `skipped`.
  std::uint64_t shape_start;
  std::uint64_t offset;
  std::uint64_t extent_start;
  std::uint64_t extent_count;
  std::uint32_t name_bytes;
  std::uint16_t rank;
  std::uint8_t dtype;
  std::uint8_t placement;
  std::uint8_t layout;
  std::uint8_t filters;
  std::uint8_t reserved[2];
  std::uint32_t file;  // 0: this one; n: the n-th of the table of files
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

/// A container that tensors lie in; its name comes behind those of the tensors. Before the first of
/// these records, their number is a u64.
struct FileRecord {
  std::uint64_t bytes;
  std::uint64_t fingerprint;
  std::uint32_t writers;
  std::uint32_t name_bytes;
};
static_assert(sizeof(FileRecord) == 24);
/// Ranks that wrote the file.
int writers_in(const FileRecord& file);

/// Bytes of an index with such a header; `files` counts where it has kHasFiles.
inline std::uint64_t bytes_of(const IndexHeader& header, std::uint64_t files) {
  return sizeof(IndexHeader) + header.tensors * sizeof(TensorRecord) +
         header.extents * sizeof(ExtentRecord) + header.numbers * sizeof(std::uint64_t) +
         ((header.flags & kHasStatistics) != 0 ? header.tensors * sizeof(StatisticsRecord) : 0) +
         ((header.flags & kHasFiles) != 0 ? sizeof(files) + files * sizeof(FileRecord) : 0) +
         header.name_bytes;
}

/// The tables of an index, in its bytes. The take_ members hand out what records refer to, in order
/// and each once, so that what is decoded is never larger than a small multiple of the index.
class IndexTables {
 public:
  /// Looks at the header alone. Lifetime: that of `bytes`, which start at an address divisible
  /// by 8. Errors: corrupt, unsupported.
  explicit IndexTables(std::span<const std::byte> bytes);

  std::span<const TensorRecord> tensors;
  std::span<const ExtentRecord> extents;
  std::span<const std::uint64_t> numbers;
  std::span<const StatisticsRecord> statistics;  ///< one for each tensor, or none
  std::span<const FileRecord> files;
  std::string_view names;

  std::string_view take_name(std::uint64_t start, std::uint64_t count);
  std::span<const std::uint64_t> take_numbers(std::uint64_t start, std::uint64_t count);
  /// Those of the files, after those of all tensors.
  void take_file_names();
  /// Ranks that wrote the file that a tensor lies in, where `own` wrote this one. Errors: corrupt
  /// where there is no such file.
  int writers_of(const TensorRecord& record, int own) const;
  /// Those behind the ones that were taken.
  std::span<const std::uint64_t> next_numbers(std::uint64_t count);
  std::span<const ExtentRecord> take_extents(std::uint64_t start, std::uint64_t count);
  /// Errors: corrupt when names, numbers or extents are left.
  void check_all_used() const;
  /// Names reach terminals and other files: what a save refuses, a reader does not let in. Errors:
  /// corrupt.
  void check_names() const;

  /// What a record refers to, whatever was taken. Errors: corrupt where that is outside.
  std::string_view name_of(const TensorRecord& record) const;
  std::span<const std::uint64_t> numbers_at(std::uint64_t start, std::uint64_t count) const;

 private:
  std::uint64_t names_used_ = 0;
  std::uint64_t numbers_used_ = 0;
  std::uint64_t extents_used_ = 0;
};

/// Decodes the next tensor of the tables. Errors: corrupt, unsupported.
TensorEntry decode_tensor(IndexTables& tables, const TensorRecord& record);

}  // namespace cairn::detail
