// Shapes, look-up by name, and requests that join neighbours: what a table of many tensors rests
// on.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <numeric>

#include "cairn/error.hpp"
#include "cairn/manifest.hpp"
#include "os/file.hpp"
#include "transfer/runs.hpp"

namespace cairn::detail {
namespace {

TEST(Shape, HoldsAnyNumberOfDimensions) {
  for (std::size_t dims = 0; dims < 12; ++dims) {
    Shape shape;
    for (std::size_t d = 0; d < dims; ++d) shape.push_back(d + 1);
    Shape copy = shape;
    EXPECT_EQ(copy, shape);
    Shape moved = std::move(copy);
    EXPECT_EQ(moved, shape);
    copy = Shape(7, 3);
    EXPECT_EQ(copy.size(), 7U);
    copy = moved;
    ASSERT_EQ(copy.size(), dims);
    for (std::size_t d = 0; d < dims; ++d) EXPECT_EQ(copy[d], d + 1);
    moved = Shape{9};
    EXPECT_EQ(copy, shape);
    EXPECT_EQ(moved, (Shape{9}));
  }
}

TEST(Shape, IsOrderedAsASequence) {
  EXPECT_LT((Shape{1, 2}), (Shape{1, 3}));
  EXPECT_LT((Shape{1}), (Shape{1, 0}));
  EXPECT_NE((Shape{1}), (Shape{1, 1}));
}

TEST(TensorNames, FindsEveryTensorAndNoOther) {
  std::vector<TensorEntry> tensors(1000);
  for (std::size_t i = 0; i < tensors.size(); ++i) tensors[i].name = "t" + std::to_string(i);
  const TensorNames names(tensors);
  for (std::size_t i = 0; i < tensors.size(); ++i) EXPECT_EQ(names.find(tensors[i].name), i);
  EXPECT_FALSE(names.contains("t1000"));
  EXPECT_FALSE(names.duplicate().has_value());
  EXPECT_FALSE(TensorNames(TensorTable()).contains(""));
  tensors[700].name = "t3";
  EXPECT_EQ(TensorNames(tensors).duplicate(), "t3");
}

/// A file whose byte i is a function of i, in the folder of temporary files.
class Runs : public testing::Test {
 protected:
  static constexpr std::uint64_t kBytes = 3 << 20;

  void SetUp() override {
    content_.resize(kBytes);
    for (std::size_t i = 0; i < kBytes; ++i) content_[i] = static_cast<std::byte>(i * 31 + i / 251);
    File::create(path_).write_at(0, content_, "test");
  }
  void TearDown() override { remove_quietly(path_); }

  /// Reads runs of `bytes` with a gap behind each, and compares.
  void check(std::uint64_t bytes, std::uint64_t gap) {
    const File file = File::open_read(path_);
    std::vector<std::byte> out(kBytes, std::byte{0xee});
    RunReader runs(file);
    for (std::uint64_t at = 0; at + bytes <= kBytes; at += bytes + gap) {
      runs.add(at, out.data() + at, bytes);
    }
    runs.flush();
    for (std::uint64_t at = 0; at + bytes <= kBytes; at += bytes + gap) {
      ASSERT_TRUE(std::equal(out.begin() + static_cast<std::ptrdiff_t>(at),
                             out.begin() + static_cast<std::ptrdiff_t>(at + bytes),
                             content_.begin() + static_cast<std::ptrdiff_t>(at)))
          << "run at " << at << " of " << bytes << " bytes";
      if (gap != 0 && at + bytes < kBytes) {
        ASSERT_EQ(out[at + bytes], std::byte{0xee});
      }
    }
  }

  std::vector<std::byte> content_;
  std::filesystem::path path_ =
      std::filesystem::path(testing::TempDir()) / ("cairn-runs-" + std::to_string(getpid()));
};

TEST_F(Runs, BringTheBytesWhereTheyBelong) {
  for (const std::uint64_t bytes : {100U, 4096U, 70000U, 2000000U}) {
    for (const std::uint64_t gap : {0U, 8U, 5000U, 100000U}) {
      SCOPED_TRACE(gap);
      check(bytes, gap);
    }
  }
}

TEST_F(Runs, ThatPassTheEndOfTheFileAreCorrupt) {
  const File file = File::open_read(path_);
  std::vector<std::byte> out(3 * 4096);
  RunReader runs(file);
  for (std::uint64_t i = 0; i < 3; ++i) {
    runs.add(kBytes - 8192 + i * 4096, out.data() + i * 4096, 4096);
  }
  try {
    runs.flush();
    ADD_FAILURE() << "read past the end";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Errc::corrupt);
  }
}

TEST(ScatteredRead, TakesMoreVectorsThanOneCallAllows) {
  const auto path =
      std::filesystem::path(testing::TempDir()) / ("cairn-many-" + std::to_string(getpid()));
  std::vector<std::uint32_t> numbers(5000);
  std::iota(numbers.begin(), numbers.end(), 0U);
  File::create(path).write_at(0, std::as_bytes(std::span(numbers)), "test");
  std::vector<std::uint32_t> back(numbers.size());
  std::vector<std::span<std::byte>> pieces;
  for (auto& number : back) pieces.push_back(std::as_writable_bytes(std::span(&number, 1)));
  File::open_read(path).read_scattered(0, pieces);
  remove_quietly(path);
  EXPECT_EQ(back, numbers);
}

/// A file of 5000 small pieces, in the order of the file but not of memory, and what it must hold.
class GatheredWrite : public testing::Test {
 protected:
  GatheredWrite() : numbers_(5000), path_(unique_path()) {
    std::iota(numbers_.begin(), numbers_.end(), 0U);
    for (auto number = numbers_.rbegin(); number != numbers_.rend(); ++number) {
      pieces_.push_back(std::as_bytes(std::span(&*number, 1)));
    }
  }
  ~GatheredWrite() override {
    unsetenv("CAIRN_FAULT");
    remove_quietly(path_);
  }

  static std::filesystem::path unique_path() {
    return std::filesystem::path(testing::TempDir()) / ("cairn-gather-" + std::to_string(getpid()));
  }
  void write() const { File::create(path_).write_gathered(0, pieces_, "test.write"); }
  std::vector<std::uint32_t> contents() const {
    std::vector<std::uint32_t> back(numbers_.size());
    File::open_read(path_).read_at(0, std::as_writable_bytes(std::span(back)));
    return back;
  }
  std::vector<std::uint32_t> backwards() const { return {numbers_.rbegin(), numbers_.rend()}; }

  std::vector<std::uint32_t> numbers_;
  std::vector<std::span<const std::byte>> pieces_;
  std::filesystem::path path_;
};

TEST_F(GatheredWrite, TakesMoreVectorsThanOneCallAllows) {
  write();
  EXPECT_EQ(contents(), backwards());
}

TEST_F(GatheredWrite, ThatIsCutShortGoesOn) {
  setenv("CAIRN_FAULT", "test.write:0:short:1,test.write:0:short:3", 1);
  write();
  EXPECT_EQ(contents(), backwards());
}

TEST_F(GatheredWrite, TellsOfAFullDisk) {
  setenv("CAIRN_FAULT", "test.write:0:full:2", 1);
  try {
    write();
    ADD_FAILURE() << "wrote to a full disk";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Errc::io);
  }
}

TEST_F(Runs, AreWrittenInOrderFromWhereTheyLie) {
  // Large and small ones, neighbours in memory and not, and gaps between them.
  const std::vector<std::byte>& source = content_;
  const std::filesystem::path copy = path_.string() + ".copy";
  const File file = File::create(copy);
  std::uint64_t told = 0;
  RunWriter runs(file, "test.write", WriteBack::later, [&](std::uint64_t n) { told += n; });
  std::uint64_t wanted = 0;
  std::vector<std::vector<std::byte>> elsewhere;
  for (std::uint64_t at = 0, i = 0; at < kBytes; ++i) {
    const std::uint64_t n = std::min<std::uint64_t>(kBytes - at, 1 + (i * 977) % 9000);
    elsewhere.emplace_back(source.begin() + static_cast<std::ptrdiff_t>(at),
                           source.begin() + static_cast<std::ptrdiff_t>(at + n));
    runs.add(at, i % 3 == 0 ? source.data() + at : elsewhere.back().data(), n);
    wanted += n;
    at += n;
  }
  runs.flush();
  EXPECT_EQ(told, wanted);
  std::vector<std::byte> back(kBytes);
  File::open_read(copy).read_at(0, back);
  remove_quietly(copy);
  EXPECT_TRUE(back == source);
}

}  // namespace
}  // namespace cairn::detail
