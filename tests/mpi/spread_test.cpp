// Files for ranks that do not see rank 0's cache: it is a relative path, and ranks are elsewhere.
#include "sources/spread.hpp"

#include <fstream>
#include <string>

#include "base/sha256.hpp"
#include "base/throw.hpp"
#include "mpi/time_limit.hpp"
#include "support/mpi_test.hpp"

namespace cairn::test {
namespace {

namespace fs = std::filesystem;

const fs::path kCache = "cache";
const fs::path kFile = kCache / "deep" / "model.bin";

/// Ranks of one `place` share a directory, for the life of the object; without, each has its own.
/// Collective.
class Elsewhere {
 public:
  explicit Elsewhere(int place = world().rank()) : back_(fs::current_path()) {
    const fs::path here = scratch() / std::to_string(place);
    fs::create_directories(here);
    fs::current_path(here);
  }
  ~Elsewhere() { fs::current_path(back_); }
  Elsewhere(const Elsewhere&) = delete;
  Elsewhere& operator=(const Elsewhere&) = delete;

 private:
  fs::path back_;
};

/// One block and a bit.
std::string content() {
  std::string text(9'000'000, '\0');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * i >> 7);
  return text;
}

void write(const std::string& text) {
  fs::create_directories(kFile.parent_path());
  std::ofstream(kFile, std::ios::binary) << text;
}

std::string read() {
  std::ifstream in(kFile, std::ios::binary);
  std::string text(fs::file_size(kFile), '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  return text;
}

bool nothing_is_left() {
  return !fs::exists(kCache / "partial") || fs::is_empty(kCache / "partial");
}

detail::Fetched fetched(const std::string& text, const std::string& sha256) {
  if (!world().is_root()) return {};
  return {kFile, kCache, {{kFile, text.size(), sha256}}};
}

TEST(Spread, BringsTheFileToEveryRankAndLeavesNothingElse) {
  const Elsewhere elsewhere;
  const std::string text = content();
  if (world().is_root()) write(text);
  if (world().rank() == 1) write(std::string(text.size(), 'x'));  // of the same size
  if (world().rank() == 2) write("shorter");
  for (const std::string& sha256 : {detail::to_hex(detail::sha256_of(text)), std::string()}) {
    detail::spread_files(world(), fetched(text, sha256));
    EXPECT_TRUE(read() == text);
    EXPECT_TRUE(nothing_is_left());
  }
}

// They make the same file for others to see: what one of them does between two calls of another
// must not matter. So often that it would be met.
TEST(Spread, RanksThatShareACacheShowItTogether) {
  if (world().size() < 3) return;
  const std::string text = "small";
  const std::string known = detail::to_hex(detail::sha256_of(text));
  const bool last = world().rank() == world().size() - 1;
  // All but the last rank share rank 0's cache, or all between them share another one.
  for (const int place : {last ? 1 : 0, last ? 2 : world().is_root() ? 0 : 1}) {
    const Elsewhere elsewhere(place);
    for (int i = 0; i < 200; ++i) {
      if (world().is_root()) write(text);
      detail::spread_files(world(), fetched(text, known));
      EXPECT_TRUE(read() == text);
      EXPECT_TRUE(nothing_is_left());
      world().all_equal(0);  // all have read
      if (place != 0) fs::remove(kFile);
      world().all_equal(0);
    }
  }
}

TEST(Spread, SendsNothingToWhoHasTheFile) {
  const Elsewhere elsewhere;
  const std::string text = content();
  write(text);
  const auto before = fs::last_write_time(kFile);
  const ScopedFault fault("spread.write:1:error,spread.rename:1:error");
  detail::spread_files(world(), fetched(text, ""));
  EXPECT_EQ(fs::last_write_time(kFile), before);
}

TEST(Spread, ADigestThatIsNotThatOfTheFileIsTheSameErrorOnAllRanks) {
  if (world().size() == 1) return;
  const Elsewhere elsewhere;
  const std::string text = content();
  if (world().is_root()) write(text);
  const auto error = expect_same_error(
      Errc::corrupt, [&] { detail::spread_files(world(), fetched(text, std::string(64, '0'))); });
  EXPECT_NE(error.find("another file"), std::string::npos) << error;
  EXPECT_EQ(fs::exists(kFile), world().is_root());
  EXPECT_TRUE(nothing_is_left());
  // The communicator is as good as before.
  detail::spread_files(world(), fetched(text, ""));
  EXPECT_TRUE(read() == text);
}

TEST(Spread, AFileThatRank0CannotReadIsTheSameErrorOnAllRanks) {
  if (world().size() == 1) return;
  const Elsewhere elsewhere;
  expect_same_error(Errc::not_found, [&] { detail::spread_files(world(), fetched("x", "")); });
  const std::string text = content();
  if (world().is_root()) write(text.substr(0, text.size() / 2));
  const std::string sha256 = detail::to_hex(detail::sha256_of(text));
  expect_same_error(Errc::corrupt, [&] { detail::spread_files(world(), fetched(text, sha256)); });
}

TEST(Spread, TheTimeLimitEndsAlsoWhatOnlyLooks) {
  if (world().size() == 1) return;
  const Elsewhere elsewhere;
  const std::string text = content();
  write(text);
  const std::string known = detail::to_hex(detail::sha256_of(text));
  for (const std::string& sha256 : {known, std::string()}) {
    const detail::TimeLimit limit(detail::TimeLimit::Clock::now(), "the test's limit");
    const auto error = expect_same_error(
        Errc::timeout, [&] { detail::spread_files(world(), fetched(text, sha256)); });
    EXPECT_NE(error.find("the test's limit"), std::string::npos) << error;
  }
}

}  // namespace
}  // namespace cairn::test
