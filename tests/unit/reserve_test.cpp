// What is reserved for a file, and what is said where it can't be.
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>

#include "cairn/error.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kBytes = 8 << 20;

/// A file on the disk that holds the sources: a tmpfs reserves nothing.
class ReserveTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = fs::current_path() / ("reserve_test." + std::to_string(getpid()));
    file_.emplace(File::create(path_));
    struct statfs system {};
    ASSERT_EQ(::statfs(path_.c_str(), &system), 0);
    if (system.f_type == TMPFS_MAGIC) {
      GTEST_SKIP() << "SKIPPED, NOT TESTED: a tmpfs at " << path_;
    }
  }
  void TearDown() override {
    unsetenv("CAIRN_FAULT");
    fs::remove(path_);
  }

  std::uint64_t bytes_on_disk() const {
    struct stat status {};
    EXPECT_EQ(::stat(path_.c_str(), &status), 0);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
  }
  std::uint64_t free_bytes() const {
    struct statvfs space {};
    EXPECT_EQ(::statvfs(path_.c_str(), &space), 0);
    return std::uint64_t{space.f_bavail} * space.f_frsize;
  }
  std::string error_of_reserving(std::uint64_t bytes) const {
    try {
      file_->reserve(bytes);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::io);
      return error.what();
    }
    return "none";
  }

  fs::path path_;
  std::optional<File> file_;
};

TEST_F(ReserveTest, TakesTheBlocksAndGivesBackTheRest) {
  file_->reserve(kBytes);
  EXPECT_EQ(file_->size(), kBytes);
  EXPECT_GE(bytes_on_disk(), kBytes);
  file_->reserve(kBytes / 8);
  EXPECT_EQ(file_->size(), kBytes / 8);
  EXPECT_LT(bytes_on_disk(), kBytes / 2);
}

TEST_F(ReserveTest, AFullDiskIsAnError) {
  setenv("CAIRN_FAULT", "reserve:0:full", 1);
  const std::string text = error_of_reserving(kBytes);
  EXPECT_NE(text.find("cannot reserve space for '" + path_.string()), std::string::npos) << text;
  EXPECT_NE(text.find("No space left"), std::string::npos) << text;
  EXPECT_NE(text.find("free space on that file system"), std::string::npos) << text;
}

TEST_F(ReserveTest, WhereNothingCanBeReservedTheFreeSpaceIsLookedAt) {
  setenv("CAIRN_FAULT", "reserve:0:refuse,reserve:0:refuse:1", 1);  // both calls
  file_->reserve(kBytes);
  EXPECT_EQ(file_->size(), kBytes);
  ASSERT_LT(bytes_on_disk(), kBytes / 2) << "it was reserved: the next call would fill the disk";
  const std::string text = error_of_reserving(free_bytes() + (std::uint64_t{16} << 30));
  EXPECT_NE(text.find("cannot reserve "), std::string::npos) << text;
  EXPECT_NE(text.find("No space left"), std::string::npos) << text;
  EXPECT_NE(text.find(" are free; "), std::string::npos) << text;
}

}  // namespace
}  // namespace cairn::detail
