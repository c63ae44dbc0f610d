// What the sources `run` and `local` take of a directory.
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

/// "code text" of what find_local says to a path that has no file.
std::string refused(const fs::path& path) {
  try {
    return "found " + find_local({path}, true).string();
  } catch (const Error& error) {
    return std::string(to_string(error.code())) + " " + error.what();
  }
}

TEST(LocalSource, SaysWhatIsThereInstead) {
  const fs::path dir =
      fs::path(testing::TempDir()) / ("cairn-local-" + std::to_string(std::rand()));
  fs::create_directories(dir / "empty");
  for (const char* name : {"pretrained.h5", "pretrain.ckpt", ".pretrained.swp", "other.bin"}) {
    std::ofstream(dir / name) << "x";
  }
  const std::string there = dir.string();
  const std::string near = refused(dir / "pretraned.h5");
  EXPECT_EQ(near.find("not_found '" + there + "/pretraned.h5' does not exist; near it: "), 0U)
      << near;
  EXPECT_LT(near.find("'pretrained.h5'"), near.find("'pretrain.ckpt'")) << near;
  EXPECT_EQ(near.find("swp"), std::string::npos) << near;
  EXPECT_EQ(refused(dir / "none" / "a.h5"), "not_found '" + there +
                                                "/none/a.h5' does not exist; the "
                                                "directory '" +
                                                there + "/none' does not exist");
  EXPECT_EQ(refused(dir / "empty" / "a.h5"),
            "not_found '" + there + "/empty/a.h5' does not exist; '" + there + "/empty' is empty");
  fs::create_symlink("gone.h5", dir / "link.h5");
  EXPECT_EQ(refused(dir / "link.h5"),
            "not_found '" + there + "/link.h5' is a link to 'gone.h5', which does not exist");
  fs::create_symlink("pretrained.h5", dir / "good.h5");
  EXPECT_EQ(find_local({dir / "good.h5"}, true), dir / "good.h5");

  const std::string home = std::getenv("HOME");
  setenv("HOME", dir.c_str(), 1);
  EXPECT_EQ(find_local({"~/pretrained.h5"}, true), dir / "pretrained.h5");
  EXPECT_NE(refused("~/pretraned.h5").find("near it: 'pretrained.h5'"), std::string::npos);
  EXPECT_EQ(refused("~nobody/a.h5").find("usage '~nobody/a.h5': only '~' and '~/'"), 0U);
  unsetenv("HOME");
  EXPECT_EQ(refused("~/a.h5"), "usage '~/a.h5' needs $HOME, which is not set; give the whole path");
  setenv("HOME", home.c_str(), 1);
  fs::remove_all(dir);
}

}  // namespace
}  // namespace cairn::detail
