#include "formats/hdf5/index.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>

#include "cairn/error.hpp"
#include "formats/hdf5/index_records.hpp"
#include "plan/tiling.hpp"

namespace cairn::detail {
namespace {

std::vector<TensorEntry> some_tensors() {
  TensorEntry rows;
  rows.name = "model/rows";
  rows.dtype = DType::bf16;
  rows.shape = {6, 4};
  rows.placement = Placement::Kind::block;
  rows.offset = 4096;
  for (std::uint64_t r = 0; r < 3; ++r) {
    Extent extent;
    extent.offset = 4096 + r * 16;
    extent.box = {{2 * r, 0}, {2, 4}};
    extent.digest = 1000 + r;
    extent.writer = static_cast<int>(r);
    rows.extents.push_back(extent);
  }
  TensorEntry flat = rows;
  flat.name = "model/flat";
  flat.placement = Placement::Kind::flat;
  flat.extents.resize(1);
  flat.extents[0].flat = true;
  flat.extents[0].box = {{0}, {24}};
  TensorEntry scalar;
  scalar.name = "model/scalar";
  scalar.extents.emplace_back().digest = 5;
  scalar.extents[0].writer = 1;
  TensorEntry filtered = rows;
  filtered.name = "model/filtered";
  filtered.offset = 0;
  filtered.layout = Layout::chunked;
  filtered.chunk = {4, 3};
  filtered.filters = kShuffled | kDeflated;
  for (Extent& extent : filtered.extents) extent.offset = 0;
  for (std::uint32_t c = 0; c < 4; ++c) filtered.stored.push_back({8192 + 100 * c, 90 + c, c % 2});
  return {rows, flat, scalar, filtered};
}

const std::vector<ReferencedFile> kFiles{{"step-1.h5", 9000, 77, 3}, {"step-2.h5", 8000, 78, 1}};

/// As above, but two of them lie in other files.
std::vector<TensorEntry> tensors_elsewhere() {
  auto tensors = some_tensors();
  for (Extent& extent : tensors[0].extents) extent.file = 1;
  tensors[1].extents[0].file = 2;
  return tensors;
}

TEST(Index, ComesBackAsItWas) {
  const auto before = some_tensors();
  const auto bytes = encode_index(before);
  EXPECT_EQ(bytes.size(), index_bytes(before));
  const auto after = decode_index(bytes);
  ASSERT_EQ(after.size(), before.size());
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(after[i].name, before[i].name);
    EXPECT_EQ(after[i].dtype, before[i].dtype);
    EXPECT_EQ(after[i].shape, before[i].shape);
    EXPECT_EQ(after[i].placement, before[i].placement);
    EXPECT_EQ(after[i].filters, before[i].filters);
    EXPECT_EQ(after[i].chunk, before[i].chunk);
    EXPECT_EQ(after[i].stored, before[i].stored);
    ASSERT_EQ(after[i].extents.size(), before[i].extents.size());
    for (std::size_t e = 0; e < before[i].extents.size(); ++e) {
      EXPECT_EQ(after[i].extents[e].box, before[i].extents[e].box);
      EXPECT_EQ(after[i].extents[e].digest, before[i].extents[e].digest);
      EXPECT_EQ(after[i].extents[e].writer, before[i].extents[e].writer);
    }
  }
}

TEST(Index, StatisticsComeBackWithNoOthersTouched) {
  auto before = some_tensors();
  const std::size_t without = index_bytes(before);
  for (TensorEntry& tensor : before) tensor.statistics.emplace();
  before[1].statistics = Statistics{3, 4, -1.5, 2.5, 1e300};
  const auto bytes = encode_index(before);
  EXPECT_EQ(bytes.size(), index_bytes(before));
  EXPECT_EQ(bytes.size(), without + 40 * before.size());
  const auto after = decode_index(bytes);
  EXPECT_EQ(after.at(0).statistics->max, -std::numeric_limits<double>::infinity());
  EXPECT_EQ(after.at(1).statistics->nan, 3U);
  EXPECT_EQ(after.at(1).statistics->inf, 4U);
  EXPECT_EQ(after.at(1).statistics->min, -1.5);
  EXPECT_EQ(after.at(1).statistics->max, 2.5);
  EXPECT_EQ(after.at(1).statistics->sum_squares, 1e300);
  EXPECT_EQ(after.at(2).name, "model/scalar");
  EXPECT_FALSE(decode_index(encode_index(some_tensors())).at(1).statistics.has_value());
}

TEST(Index, PartsOfALaterVersionAreRefused) {
  auto bytes = encode_index(some_tensors());
  bytes.at(12) |= std::byte{8};  // another flag than "statistics", "filters" and "files"
  try {
    decode_index(bytes);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Errc::unsupported) << error.what();
  }
}

TEST(Index, TellsWhichFilesItsTensorsLieIn) {
  const auto bytes = encode_index(tensors_elsewhere(), kFiles);
  EXPECT_EQ(bytes.size(), index_bytes(tensors_elsewhere(), kFiles));
  EXPECT_EQ(files_of_index(bytes), kFiles);
  check_index(bytes, 3);
  auto fewer = kFiles;
  fewer[0].writers = 2;  // rank 2 wrote a part of what lies there
  EXPECT_THROW(check_index(encode_index(tensors_elsewhere(), fewer), 3), Error);
  const auto tensors = decode_index(bytes);
  EXPECT_EQ(tensors[0].extents[2].file, 1U);
  EXPECT_EQ(tensors[1].extents[0].file, 2U);
  EXPECT_EQ(tensors[3].extents[0].file, 0U);
  const IndexTable table(bytes);
  EXPECT_EQ(table.head(1).file, 2U);
  EXPECT_EQ(table.content_digest(0), tensors[0].content_digest());
  EXPECT_TRUE(files_of_index(encode_index(some_tensors())).empty());
}

TEST(Index, NamesOfFilesLeadNowhereElse) {
  for (const char* name : {"", ".", "..", "/etc/passwd", "../a.h5", "a/b.h5"}) {
    auto files = kFiles;
    files[1].name = name;
    EXPECT_THROW(files_of_index(encode_index(tensors_elsewhere(), files)), Error) << name;
  }
}

/// Many damaged forms of an index whose file was written by 3 ranks.
void expect_no_crash(const std::vector<std::byte>& good) {
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    auto bad = good;
    for (int flips = 1 + round % 3; flips > 0; --flips) {
      bad[random() % bad.size()] ^= static_cast<std::byte>(1U << random() % 8);
    }
    if (round % 5 == 0) bad.resize(random() % bad.size());
    const auto accepts = [](auto&& read) {
      try {
        read();
        return true;
      } catch (const Error& error) {
        EXPECT_NE(error.code(), Errc::internal) << error.what();
        return false;
      }
    };
    const bool decodes = accepts([&] {
      std::vector<int> writers{3};
      const IndexTables tables(bad);
      for (const FileRecord& file : tables.files) writers.push_back(writers_in(file));
      for (const TensorEntry& tensor : decode_index(bad)) {
        check_tiling(tensor);
        for (const Extent& extent : tensor.extents) {
          if (extent.writer < 0 || extent.writer >= writers.at(extent.file)) {
            throw Error(Errc::corrupt, "no such writer");
          }
        }
      }
    });
    // What is checked without making the entries is the same.
    EXPECT_EQ(accepts([&] { check_index(bad, 3); }), decodes) << round;
    accepts([&] {
      const IndexTable table(bad);
      for (std::size_t t = 0; t < table.size(); ++t) table.head(t);
    });
    accepts([&] { files_of_index(bad); });
  }
}

TEST(Index, DamageIsAnErrorAndNeverACrash) {
  expect_no_crash(encode_index(some_tensors()));
  expect_no_crash(encode_index(tensors_elsewhere(), kFiles));
}

void expect_corrupt(const std::vector<std::byte>& bytes, const std::string& words) {
  EXPECT_THROW(check_index(bytes, 3), Error);
  try {
    decode_index(bytes);
    FAIL() << "was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Errc::corrupt) << error.what();
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
  }
}

TEST(Index, OneNameIsOneTensor) {
  auto tensors = some_tensors();
  tensors[1].name = tensors[0].name;
  expect_corrupt(encode_index(tensors), "twice");
}

TEST(Index, NoTensorHasMoreDimensionsThanHdf5Allows) {
  auto tensors = some_tensors();
  TensorEntry& deep = tensors[0];
  deep.layout = Layout::contiguous;
  deep.placement = Placement::Kind::block;
  deep.shape.assign(33, 1);
  deep.extents.resize(1);
  deep.extents[0].flat = false;
  deep.extents[0].offset = deep.offset;
  deep.extents[0].box = Box::whole(deep.shape);
  expect_corrupt(encode_index(tensors), "out of range");
}

TEST(Index, BoxesAndFlatRangesDoNotMix) {
  auto tensors = some_tensors();
  tensors[1].placement = Placement::Kind::block;
  expect_corrupt(encode_index(tensors), "mixes");
}

TEST(Index, APartOfAContiguousTensorLiesWhereItsBoxSays) {
  auto tensors = some_tensors();
  tensors[0].extents[1].offset += 2;
  expect_corrupt(encode_index(tensors), "where it can't be");
}

TEST(Index, NamesDoNotSteerTerminals) {
  for (const char* name : {"model/\x1b[31m", "model/a\nb", "model/\x7f"}) {
    auto tensors = some_tensors();
    tensors[2].name = name;
    expect_corrupt(encode_index(tensors), "control characters");
  }
}

// Otherwise a small index could stand for a table of any size.
TEST(Index, NoTwoRecordsShareTheirParts) {
  constexpr std::size_t kHeader = 48;
  constexpr std::size_t kRecord = 56;
  for (const std::size_t field : {0U, 8U, 24U}) {  // starts of name, shape, extents
    auto bytes = encode_index(some_tensors());
    std::memset(bytes.data() + kHeader + kRecord + field, 0, 8);
    expect_corrupt(bytes, "not its own");
  }
}

}  // namespace
}  // namespace cairn::detail
