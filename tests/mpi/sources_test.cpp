// Sources as a program sees them: registered types, progress, errors of rank 0.
#include <atomic>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "base/throw.hpp"
#include "cairn/source.hpp"
#include "support/mpi_test.hpp"

namespace cairn::test {
namespace {

namespace fs = std::filesystem;

std::atomic<int> progress_calls{0};

/// Ends when the progress of its fetch has been asked for twice.
fs::path watched(const CustomSource&, const FetchContext& context) {
  while (progress_calls < 2) {
    if (std::chrono::steady_clock::now() > context.deadline) {
      detail::fail(Errc::timeout, "nobody asked for progress");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const fs::path file = context.cache_dir / "watched";
  std::ofstream(file) << "content";
  return file;
}

TEST(Sources, ProgressIsToldOnRank0ByTheThreadThatWaits) {
  register_source_type("watched", watched);
  const fs::path dir = scratch();
  const auto caller = std::this_thread::get_id();
  bool elsewhere = false;
  SourceSettings settings;
  settings.progress = [&](const FetchProgress&) {
    ++progress_calls;
    elsewhere = elsewhere || std::this_thread::get_id() != caller;
  };
  const CustomSource source{"watched", {}, {.cache_dir = dir}};
  EXPECT_EQ(resolve_source(world(), source, settings), dir / "watched");
  EXPECT_FALSE(elsewhere);
  EXPECT_EQ(progress_calls > 0, world().is_root());
}

TEST(Sources, ProgressThatThrowsIsTheSameErrorOnAllRanks) {
  register_source_type("patient", [](const CustomSource&, const FetchContext& context) -> fs::path {
    std::this_thread::sleep_until(context.deadline);
    return {};
  });
  const fs::path dir = scratch();
  SourceSettings settings;
  settings.timeout = std::chrono::seconds(1);
  settings.progress = [](const FetchProgress&) { throw std::runtime_error("enough"); };
  const CustomSource source{"patient", {}, {.cache_dir = dir}};
  const auto text =
      expect_same_error(Errc::internal, [&] { resolve_source(world(), source, settings); });
  EXPECT_NE(text.find("enough"), std::string::npos) << text;
}

TEST(Sources, ATypeThatNobodyRegisteredIsNamed) {
  const auto text = expect_same_error(Errc::usage, [&] {
    resolve_source(world(), CustomSource{"wached", {}, {.cache_dir = scratch()}});
  });
  EXPECT_NE(text.find("'watched'"), std::string::npos) << text;
}

TEST(Sources, TheSourceOfRank0Counts) {
  const fs::path dir = scratch();
  if (world().is_root()) std::ofstream(dir / "here") << "content";
  const Source source = world().is_root() ? Source(LocalSource{dir / "here"})
                                          : Source(HttpSource{"http://127.0.0.1:1/"});
  EXPECT_EQ(resolve_source(world(), source), dir / "here");
}

}  // namespace
}  // namespace cairn::test
