#include "os/block_writer.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <random>
#include <vector>

#include "cairn/error.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kFileBytes = 40 << 20;

struct Part {
  std::uint64_t offset;
  std::uint64_t bytes;
};

/// A file on the disk that holds the sources, which is not in memory as /tmp may be.
class BlockWriterTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = fs::current_path() / ("block_writer_test." + std::to_string(getpid()));
    file_.emplace(File::create(path_));
    file_->reserve(kFileBytes);
    if (!file_->reopen_past_cache()) {
      GTEST_SKIP() << "SKIPPED, NOT TESTED: no O_DIRECT on the file system of " << path_;
    }
  }
  void TearDown() override {
    unsetenv("CAIRN_FAULT");
    fs::remove(path_);
  }

  std::vector<std::byte> contents() const {
    std::vector<std::byte> all(kFileBytes);
    file_->read_at(0, all);
    return all;
  }

  fs::path path_;
  std::optional<File> file_;
};

std::vector<std::byte> noise(std::uint64_t bytes, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> all(bytes);
  for (std::byte& byte : all) byte = static_cast<std::byte>(random());
  return all;
}

/// What the file must hold after `runs` of `source` were written to it.
std::vector<std::byte> expected(const std::vector<Part>& runs,
                                const std::vector<std::byte>& source) {
  std::vector<std::byte> all(kFileBytes);
  for (const Part& run : runs) {
    std::copy_n(source.begin() + static_cast<std::ptrdiff_t>(run.offset), run.bytes,
                all.begin() + static_cast<std::ptrdiff_t>(run.offset));
  }
  return all;
}

const std::vector<Part>& awkward_runs() {
  static const std::vector<Part> runs = {
      {1, 5},                           // a few bytes
      {4000, 200},                      // over the edge of a block
      {8192, 4096},                     // one block
      {20'000, 100'000},                // blocks with edges
      {120'000, 77},                    // a neighbour
      {(1 << 20) + 3, (9 << 20) + 11},  // more than one buffer
      {12 << 20, 16 << 20},             // whole buffers
      {30 << 20, 4095},
      {kFileBytes - 70'000, 70'000},  // up to the end
  };
  return runs;
}

TEST_F(BlockWriterTest, WritesEveryByteOfEveryRunAndNoOther) {
  const auto source = noise(kFileBytes, 1);
  std::uint64_t told = 0, wanted = 0;
  {
    const auto writer =
        BlockWriter::open(*file_, "test.write", [&](std::uint64_t bytes) { told += bytes; });
    ASSERT_TRUE(writer);
    for (const Part& run : awkward_runs()) {
      // In pieces of odd sizes, from memory that is then overwritten: add() takes a copy.
      for (std::uint64_t at = 0; at < run.bytes;) {
        const std::uint64_t count = std::min<std::uint64_t>(run.bytes - at, 300'007);
        std::vector<std::byte> piece(
            source.begin() + static_cast<std::ptrdiff_t>(run.offset + at),
            source.begin() + static_cast<std::ptrdiff_t>(run.offset + at + count));
        writer->add(run.offset + at, piece.data(), count);
        std::fill(piece.begin(), piece.end(), std::byte{0xee});
        at += count;
      }
      wanted += run.bytes;
    }
    writer->flush();
  }
  EXPECT_EQ(told, wanted);
  EXPECT_TRUE(contents() == expected(awkward_runs(), source));
}

TEST_F(BlockWriterTest, ShortWritesAreContinued) {
  setenv("CAIRN_FAULT", "test.write:0:short:1,test.write:0:short:2,test.write:0:short:3", 1);
  const auto source = noise(kFileBytes, 2);
  const auto writer = BlockWriter::open(*file_, "test.write", [](std::uint64_t) {});
  writer->add(0, source.data(), kFileBytes);
  writer->flush();
  EXPECT_TRUE(contents() == source);
}

TEST_F(BlockWriterTest, WhatTheFileSystemRefusesAfterAllGoesThroughTheCache) {
  auto source = noise(kFileBytes, 5);
  // The first request, one in the middle, and one behind a request that was short.
  for (const char* rules : {"test.write:0:refuse:1", "test.write:0:refuse:3",
                            "test.write:0:short:2,test.write:0:refuse:2"}) {
    setenv("CAIRN_FAULT", rules, 1);
    for (std::byte& byte : source) byte = ~byte;  // others than are there from the round before
    std::uint64_t told = 0;
    const auto writer =
        BlockWriter::open(*file_, "test.write", [&](std::uint64_t bytes) { told += bytes; });
    writer->add(0, source.data(), kFileBytes);
    writer->flush();
    EXPECT_EQ(told, kFileBytes) << rules;
    EXPECT_TRUE(contents() == source) << rules;
  }
}

TEST_F(BlockWriterTest, AFullDiskIsToldOnceItIsKnown) {
  for (const char* pass : {"1", "2", "5"}) {
    setenv("CAIRN_FAULT", (std::string("test.write:0:full:") + pass).c_str(), 1);
    const auto source = noise(kFileBytes, 3);
    const auto writer = BlockWriter::open(*file_, "test.write", [](std::uint64_t) {});
    try {
      writer->add(0, source.data(), kFileBytes);
      writer->flush();
      ADD_FAILURE() << "pass " << pass << ": no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::io);
      EXPECT_NE(std::string(error.what()).find(path_.string()), std::string::npos);
    }
    EXPECT_THROW(writer->flush(), Error) << "a failure must not be forgotten";
  }
}

TEST_F(BlockWriterTest, WhatWasNotFlushedMayBeGivenUp) {
  const auto source = noise(kFileBytes, 4);
  const auto writer = BlockWriter::open(*file_, "test.write", [](std::uint64_t) {});
  writer->add(5, source.data() + 5, kFileBytes - 5);
  // The destructor must neither wait for ever nor touch the file afterwards.
}

TEST(BlockWriter, FilesInMemoryAreNotForIt) {
  if (!fs::exists("/dev/shm")) GTEST_SKIP() << "SKIPPED, NOT TESTED: no /dev/shm";
  const fs::path path = "/dev/shm/block_writer_test." + std::to_string(getpid());
  const File file = File::create(path);
  EXPECT_EQ(BlockWriter::open(file, "test.write", [](std::uint64_t) {}), nullptr);
  fs::remove(path);
}

}  // namespace
}  // namespace cairn::detail
