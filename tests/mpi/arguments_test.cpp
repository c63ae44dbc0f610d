// Ranks that do not mean the same, or do not see the same file.
#include <fstream>

#include "cairn/checkpoint.hpp"
#include "cairn/source.hpp"
#include "support/mpi_test.hpp"
#include "support/sample_state.hpp"

namespace cairn {
namespace {

using namespace test;

class Arguments : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = scratch();
    pieces_ = sample_pieces(Cut::rows, world().size(), world().rank());
    save(dir_ / "step-00000001.h5", 1);
  }

  void save(const std::filesystem::path& path, std::uint64_t step) {
    Saver(world(), {}).save(path, sample_state(pieces_, world().rank(), step));
  }

  /// This rank's wish to load everything that it saved.
  std::vector<MutableTensorView> targets() {
    std::vector<MutableTensorView> views;
    for (Piece& piece : pieces_) {
      views.push_back({piece.name, piece.dtype, piece.placement, piece.bytes.data()});
    }
    return views;
  }

  bool odd() const { return world().rank() == world().size() - 1; }

  std::filesystem::path dir_;
  std::vector<Piece> pieces_;
};

TEST_F(Arguments, OptionsOfALoadMustBeTheSame) {
  const Manifest manifest = open_checkpoint(world(), dir_ / "step-00000001.h5");
  LoadOptions engine;
  LoadOptions verify;
  if (odd()) {
    engine.engine = EngineKind::mpio;
    verify.verify = VerifyWhen::never;
  }
  expect_same_error(Errc::mismatch, [&] { load_tensors(world(), manifest, targets(), engine); });
  expect_same_error(Errc::mismatch, [&] { load_tensors(world(), manifest, targets(), verify); });
}

TEST_F(Arguments, TheCheckpointMustBeTheSame) {
  save(dir_ / "step-00000002.h5", 2);
  const Manifest manifest =
      open_checkpoint(dir_ / (odd() ? "step-00000002.h5" : "step-00000001.h5"));
  expect_same_error(Errc::mismatch, [&] { load_tensors(world(), manifest, targets()); });
  expect_same_error(Errc::mismatch, [&] { verify_tensors(world(), manifest); });
  expect_same_error(Errc::mismatch, [&] { load_rank_blob(world(), manifest, "rng"); });
}

TEST_F(Arguments, TheTensorsToVerifyMustBeTheSame) {
  const Manifest manifest = open_checkpoint(world(), dir_ / "step-00000001.h5");
  const std::size_t which = odd() ? 1 : 0;
  expect_same_error(Errc::mismatch,
                    [&] { verify_tensors(world(), manifest, {manifest.tensors.at(which).name}); });
}

TEST_F(Arguments, AFileThatWasReplacedIsNotReadAsTheOldOne) {
  const Manifest manifest = open_checkpoint(world(), dir_ / "step-00000001.h5");
  pieces_ = sample_pieces(Cut::rows, world().size(), world().rank(), /*version=*/2);
  save(dir_ / "step-00000001.h5", 1);
  for (const EngineKind engine : {EngineKind::direct, EngineKind::mpio}) {
    for (const VerifyWhen verify : {VerifyWhen::before, VerifyWhen::loaded, VerifyWhen::never}) {
      const LoadOptions options{.engine = engine, .verify = verify};
      expect_same_error(Errc::mismatch,
                        [&] { load_tensors(world(), manifest, targets(), options); });
    }
  }
}

/// Ranks in directories of their own: one relative path is several files.
class OwnDirectories : public Arguments {
 protected:
  void SetUp() override {
    Arguments::SetUp();
    before_ = std::filesystem::current_path();
    const auto mine = dir_ / std::to_string(world().rank());
    std::filesystem::create_directory(mine);
    std::filesystem::current_path(mine);
  }
  void TearDown() override { std::filesystem::current_path(before_); }

  std::filesystem::path before_;
};

TEST_F(OwnDirectories, ASaveToNodeLocalPathsIsRefused) {
  expect_same_error(Errc::not_found, [&] { save("step-00000002.h5", 2); });
  // What a node kept of an earlier attempt is not taken for the file of this one.
  const auto whole = std::filesystem::file_size(dir_ / "step-00000001.h5");
  if (!world().is_root()) {
    std::ofstream(".step-00000002.h5.partial") << std::string(whole, '\0');
  }
  expect_same_error(Errc::mismatch, [&] { save("step-00000002.h5", 2); });
}

TEST_F(OwnDirectories, ALoadFromNodeLocalPathsIsRefused) {
  std::filesystem::copy_file(dir_ / "step-00000001.h5", "step-00000001.h5");
  const Manifest same = open_checkpoint(world(), "step-00000001.h5");
  load_tensors(world(), same, targets());  // equal copies are equal
  if (odd()) {
    std::fstream file("step-00000001.h5", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-60, std::ios::end);
    file.put('x');
  }
  expect_same_error(Errc::mismatch, [&] { load_tensors(world(), same, targets()); });
}

TEST_F(Arguments, ADirectoryIsNoTarget) {
  if (world().is_root()) std::filesystem::create_directory(dir_ / "step-00000003.h5");
  expect_same_error(Errc::usage, [&] { save(dir_ / "step-00000003.h5", 3); });
}

TEST_F(Arguments, SourcesThatNameNothingAreRefused) {
  const RunSource run{dir_.parent_path(), dir_.filename().string(), false};
  EXPECT_EQ(resolve_source(world(), run).filename(), "step-00000001.h5");
  RunSource fork = run;
  fork.fork = true;
  EXPECT_EQ(resolve_source(world(), fork).filename(), "step-00000001.h5");
  RunSource none = run;
  none.run_id = "no-such-run";
  expect_same_error(Errc::not_found, [&] { resolve_source(world(), none); });
  expect_same_error(Errc::usage, [&] { resolve_source(world(), HttpSource{}); });
}

TEST_F(Arguments, TooManyDocumentsAreRefusedBeforeBytesMove) {
  StateView state = sample_state(pieces_, world().rank(), 4);
  for (int i = 0; i < 200; ++i) state.documents["document-" + std::to_string(i)] = "{}";
  expect_same_error(Errc::usage, [&] {
    SaveOptions options;
    options.progress = [](const SaveProgress& now) { EXPECT_LT(now.step, SaveStep::move); };
    Saver(world(), options).save(dir_ / "step-00000004.h5", state);
  });
}

}  // namespace
}  // namespace cairn
