#include <cstring>

#include "cairn/checkpoint.hpp"
#include "support/mpi_test.hpp"
#include "support/sample_state.hpp"
#include "support/save_faults.hpp"

namespace cairn {
namespace {

using namespace test;

void expect_loads(const std::filesystem::path& path, Cut cut, const LoadOptions& options) {
  const std::vector<Piece> wanted = sample_pieces(cut, world().size(), world().rank());
  EXPECT_EQ(wrong_pieces(world(), path, wanted, options), std::vector<std::string>());
}

struct Mode {
  EngineKind engine;
  Transfer transfer;
  unsigned deflate = 0;
};

class EveryEngine : public testing::TestWithParam<Mode> {
 protected:
  SaveOptions save_options() const {
    SaveOptions options;
    options.engine = GetParam().engine;
    options.transfer = GetParam().transfer;
    options.mpio.deflate = GetParam().deflate;
    return options;
  }
  LoadOptions load_options() const {
    LoadOptions options;
    options.engine = GetParam().engine;
    options.transfer = GetParam().transfer;
    return options;
  }
};

TEST_P(EveryEngine, EveryCutLoadsBackUnderEveryOther) {
  const auto dir = scratch();
  std::uint64_t step = 0;
  // What has to be inflated takes long: two cuts each then, the same one and the next.
  const std::size_t loads = GetParam().deflate == 0 ? kAllCuts.size() : 2;
  for (const Cut cut : kAllCuts) {
    Saver saver(world(), save_options());
    const auto path = checkpoint_path(dir, ++step);
    const auto pieces = sample_pieces(cut, world().size(), world().rank());
    saver.save(path, sample_state(pieces, world().rank(), step));
    for (std::size_t i = 0; i < loads; ++i) {
      expect_loads(path, kAllCuts[(step - 1 + i) % kAllCuts.size()], load_options());
    }
    const Manifest manifest = open_checkpoint(world(), path);
    EXPECT_TRUE(verify_tensors(world(), manifest).defects.empty());
    EXPECT_EQ(manifest.commit.step, step);
    EXPECT_EQ(manifest.documents.at("context"), R"({"epoch": 3})");
    EXPECT_TRUE(manifest.warnings.empty());
  }
}

TEST_P(EveryEngine, LaterSavesCarryTheNewValues) {
  const auto dir = scratch();
  Saver saver(world(), save_options());
  auto pieces = sample_pieces(Cut::rows, world().size(), world().rank());
  saver.save(checkpoint_path(dir, 1), sample_state(pieces, world().rank(), 1));
  pieces = sample_pieces(Cut::rows, world().size(), world().rank(), /*version=*/2);
  saver.save(checkpoint_path(dir, 2), sample_state(pieces, world().rank(), 2));
  const Manifest manifest = open_checkpoint(world(), checkpoint_path(dir, 2));
  for (const Piece& piece : pieces) {
    std::vector<std::byte> memory(piece.bytes.size());
    const MutableTensorView target{piece.name, piece.dtype, piece.placement, memory.data()};
    load_tensors(world(), manifest, {&target, 1}, load_options());
    EXPECT_TRUE(memory == piece.bytes) << piece.name;
  }
  expect_loads(checkpoint_path(dir, 1), Cut::flat, load_options());
}

TEST_P(EveryEngine, AnErrorOnOneRankIsTheSameOnAllAndLeavesNothing) {
  const auto dir = scratch();
  Saver saver(world(), save_options());
  const auto pieces = sample_pieces(Cut::rows, world().size(), world().rank());
  saver.save(checkpoint_path(dir, 1), sample_state(pieces, world().rank(), 1));
  const auto save_again = [&](Saver& by) {
    by.save(checkpoint_path(dir, 2), sample_state(pieces, world().rank(), 2));
  };
  const auto expect_nothing_left = [&] {
    EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 1));
    EXPECT_FALSE(std::filesystem::exists(dir / ".step-00000002.h5.partial"));
  };
  std::vector<std::string> points;
  if (GetParam().engine == EngineKind::mpio) points = {"move.open", "move.transfer"};
  // With filters only the commit is another one, and every save takes longer.
  const auto faults = GetParam().deflate == 0 ? save_faults(points) : std::vector<SaveFault>();
  for (const auto& [rule, rank] : faults) {
    const ScopedFault fault(rule);
    const std::string text = expect_same_error(Errc::io, [&] { save_again(saver); });
    EXPECT_NE(text.find("rank " + rank), std::string::npos) << text;
    expect_nothing_left();
  }
  const std::string last = std::to_string(world().size() - 1);
  for (const std::string& rule :
       {"layout:" + last + ":error", std::string("layout.skeleton:0:error")}) {
    const ScopedFault fault(rule);
    Saver first(world(), save_options());  // one that has made no layout yet
    expect_same_error(Errc::io, [&] { save_again(first); });
    expect_nothing_left();
  }
  // Metadata, index, two documents, commit record, trailer and signature, at least.
  EXPECT_GE(fill_disk_at_each_commit_write([&] { save_again(saver); }, expect_nothing_left), 7);
  EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 2));
  EXPECT_EQ(std::filesystem::read_symlink(dir / "last"), "step-00000002.h5");
}

TEST_P(EveryEngine, AProgressCallbackThatThrowsFailsTheSaveOnAllRanks) {
  const auto dir = scratch();
  SaveOptions options = save_options();
  options.progress = [](const SaveProgress& now) {
    if (world().rank() == world().size() - 1 && now.step == SaveStep::move) {
      throw std::runtime_error("watcher");
    }
  };
  Saver saver(world(), options);
  const auto pieces = sample_pieces(Cut::rows, world().size(), world().rank());
  const std::string text = expect_same_error(Errc::internal, [&] {
    saver.save(checkpoint_path(dir, 1), sample_state(pieces, world().rank(), 1));
  });
  EXPECT_NE(text.find("watcher"), std::string::npos) << text;
  EXPECT_FALSE(newest_checkpoint(dir).has_value());
}

std::string name_of(const testing::TestParamInfo<Mode>& mode) {
  if (mode.param.engine == EngineKind::direct) return "direct";
  if (mode.param.deflate != 0) return "mpio_deflate";
  return mode.param.transfer == Transfer::collective ? "mpio_collective" : "mpio_independent";
}

INSTANTIATE_TEST_SUITE_P(Engines, EveryEngine,
                         testing::Values(Mode{EngineKind::direct, Transfer::collective},
                                         Mode{EngineKind::mpio, Transfer::collective},
                                         Mode{EngineKind::mpio, Transfer::independent},
                                         Mode{EngineKind::mpio, Transfer::collective, 4}),
                         name_of);

}  // namespace
}  // namespace cairn
