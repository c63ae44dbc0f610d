// What the source `run` takes of a run's directory.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "cairn/error.hpp"
#include "sources/local.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;

TEST(RunSource, TakesTheNamedFileOrTheLastOne) {
  const fs::path root = fs::path(testing::TempDir()) / ("cairn-run-" + std::to_string(std::rand()));
  fs::create_directories(root / "a");
  EXPECT_THROW(find_run({root, "a"}, true), Error);  // nothing is there yet
  std::ofstream(root / "a" / "last.ckpt") << "x";
  std::ofstream(root / "a" / "epoch_042.ckpt") << "x";
  EXPECT_EQ(find_run({root, "a"}, true), root / "a" / "last.ckpt");
  EXPECT_EQ(find_run({root, "a", false, "epoch_042.ckpt"}, true), root / "a" / "epoch_042.ckpt");
  EXPECT_THROW(find_run({root, "a", false, "epoch_043.ckpt"}, true), Error);
  EXPECT_THROW(find_run({"", "a"}, true), Error);
  fs::create_directories(root / "a" / "old");
  std::ofstream(root / "a" / "old" / "x.ckpt") << "x";
  std::ofstream(root / "outside.ckpt") << "x";
  EXPECT_EQ(find_run({root, "a", false, "old/x.ckpt"}, true), root / "a" / "old/x.ckpt");
  for (const std::string& file :
       {std::string("../outside.ckpt"), (root / "outside.ckpt").string()}) {
    try {
      find_run({root, "a", false, file}, true);
      ADD_FAILURE() << file;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::usage) << error.what();
    }
  }
  fs::remove_all(root);
}

}  // namespace
}  // namespace cairn::detail
