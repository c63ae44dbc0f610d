// SaveOptions::delta: what has not changed is not written again.
#include <fstream>

#include "checkpoint/flatten.hpp"
#include "support/delta_state.hpp"

namespace cairn {
namespace {

using namespace test;
namespace fs = std::filesystem;

class EveryEngine : public testing::TestWithParam<EngineKind> {};

TEST_P(EveryEngine, WritesWhatChangedAndRefersToTheFileThatHoldsTheRest) {
  for (const Cut cut : kAllCuts) {
    // Parallel HDF5 takes long, and is told boxes, whatever the cut: one of each kind.
    if (GetParam() == EngineKind::mpio && cut != Cut::replicated && cut != Cut::columns &&
        cut != Cut::flat) {
      continue;
    }
    const auto dir = scratch();
    Saver saver(world(), delta(GetParam()));
    for (std::uint64_t step = 1; step <= 4; ++step) {
      save(saver, checkpoint_path(dir, step), pieces_of(cut, step, /*rare=*/step < 3 ? step : 2),
           step);
    }
    LoadOptions same_engine;
    same_engine.engine = GetParam();
    LoadOptions broadcasts;
    broadcasts.broadcast = BroadcastReplicas::always;
    broadcasts.verify = VerifyWhen::loaded;
    for (std::uint64_t step = 1; step <= 4; ++step) {
      const auto wanted = pieces_of(Cut::rows, step, step < 3 ? step : 2);
      EXPECT_TRUE(holds(checkpoint_path(dir, step), wanted, same_engine)) << step;
      EXPECT_TRUE(holds(checkpoint_path(dir, step),
                        pieces_of(Cut::replicated, step, step < 3 ? step : 2), broadcasts))
          << step;
    }
    const Manifest last = open_checkpoint(world(), checkpoint_path(dir, 4));
    EXPECT_EQ(home_of(last, "model/large"), name_of(1));
    EXPECT_EQ(home_of(last, "model/scalar"), name_of(2));
    EXPECT_EQ(home_of(last, "model/deep"), name_of(4));
    EXPECT_EQ(home_of(last, "ranks/rng"), name_of(4));
    EXPECT_EQ(last.files.size(), 3U);
    // 1.2 MB of them are model/large.
    EXPECT_LT(4 * fs::file_size(checkpoint_path(dir, 4)), fs::file_size(checkpoint_path(dir, 1)));
    EXPECT_EQ(load_rank_blob(world(), last, "rng")->size(),
              6U + static_cast<unsigned>(world().rank()));

    // A whole save of the same state has the same digests.
    Saver whole(world(), SaveOptions{});
    save(whole, dir / "whole.h5", pieces_of(Cut::grid, 4, 2), 4);
    const Manifest other = open_checkpoint(world(), dir / "whole.h5");
    ASSERT_EQ(other.tensors.size(), last.tensors.size());
    for (std::size_t t = 0; t < other.tensors.size(); ++t) {
      EXPECT_EQ(other.tensors[t].content_digest(), last.tensors[t].content_digest());
    }
    EXPECT_EQ(other.commit.structure, last.commit.structure);
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, EveryEngine,
                         testing::Values(EngineKind::direct, EngineKind::mpio),
                         [](const auto& engine) { return std::string(to_string(engine.param)); });

TEST(Delta, GoesOnInAnotherProcessAndWithOtherRanks) {
  const auto dir = scratch();
  const Comm self(MPI_COMM_SELF);
  {
    Saver saver(world(), delta());
    save(saver, checkpoint_path(dir, 1), pieces_of(Cut::columns, 1));
  }
  on_root([&] {
    Saver saver(self, delta());
    save(saver, checkpoint_path(dir, 2), pieces_of(Cut::replicated, 2, 1, self), 2, self);
  });
  Saver saver(world(), delta());
  save(saver, checkpoint_path(dir, 3), pieces_of(Cut::flat, 3), 3);
  EXPECT_TRUE(holds(checkpoint_path(dir, 2), pieces_of(Cut::rows, 2)));
  EXPECT_TRUE(holds(checkpoint_path(dir, 3), pieces_of(Cut::rows, 3)));
  for (const std::uint64_t step : {2, 3}) {
    const Manifest manifest = open_checkpoint(world(), checkpoint_path(dir, step));
    EXPECT_EQ(home_of(manifest, "model/large"), name_of(1));
    EXPECT_EQ(home_of(manifest, "model/deep"), name_of(step));
  }
}

TEST(Delta, TheSameStateAgainWritesNoTensor) {
  const auto dir = scratch();
  Saver saver(world(), delta());
  const auto pieces = pieces_of(Cut::rows, 1);
  save(saver, checkpoint_path(dir, 1), pieces);
  save(saver, checkpoint_path(dir, 2), pieces);
  const Manifest manifest = open_checkpoint(world(), checkpoint_path(dir, 2));
  EXPECT_EQ(home_of(manifest, "model/deep"), name_of(1));
  EXPECT_TRUE(holds(checkpoint_path(dir, 2), pieces_of(Cut::grid, 1)));
}

TEST(Delta, ADirectoryMayMove) {
  const auto dir = scratch();
  Saver saver(world(), delta());
  save(saver, dir / "run" / name_of(1), pieces_of(Cut::rows, 1));
  save(saver, dir / "run" / name_of(2), pieces_of(Cut::rows, 2), 2);
  on_root([&] {
    fs::rename(dir / "run", dir / "moved");
    fs::create_symlink(dir / "moved" / name_of(2), dir / "link.h5");
  });
  EXPECT_TRUE(holds(dir / "moved" / name_of(2), pieces_of(Cut::flat, 2)));
  EXPECT_TRUE(holds(dir / "link.h5", pieces_of(Cut::flat, 2)));
}

TEST(Delta, DamageOfReferredDataIsFound) {
  const auto dir = scratch();
  Saver saver(world(), delta());
  save(saver, checkpoint_path(dir, 1), pieces_of(Cut::rows, 1));
  save(saver, checkpoint_path(dir, 2), pieces_of(Cut::rows, 2), 2);
  const Manifest manifest = open_checkpoint(world(), checkpoint_path(dir, 2));
  on_root([&] {
    std::fstream file(checkpoint_path(dir, 1), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(manifest.find("model/large")->offset + 70000));
    file.put('\x5a');
  });
  const auto defects = verify_tensors(world(), manifest).defects;
  ASSERT_EQ(defects.size(), 1U);
  EXPECT_EQ(defects[0].tensor, "model/large");
  EXPECT_NE(defects[0].text.find(name_of(1)), std::string::npos) << defects[0].text;
}

TEST(Delta, WorksInTheBackground) {
  for (const WhenBusy busy : {WhenBusy::wait, WhenBusy::queue}) {
    const auto dir = scratch();
    SaveOptions options = delta();
    options.async.when_busy = busy;
    options.retention.keep_last = 1;
    Saver saver(world(), options);
    for (std::uint64_t step = 1; step <= 4; ++step) {
      auto pieces = pieces_of(Cut::columns, step);
      saver.save_async(checkpoint_path(dir, step), sample_state(pieces, world().rank(), step));
      for (Piece& piece : pieces) std::fill(piece.bytes.begin(), piece.bytes.end(), std::byte{9});
    }
    saver.wait();
    EXPECT_EQ(files_in(dir), (std::set<std::string>{"last", name_of(1), name_of(4)}));
    EXPECT_TRUE(holds(checkpoint_path(dir, 4), pieces_of(Cut::rows, 4)));
    EXPECT_EQ(home_of(open_checkpoint(world(), checkpoint_path(dir, 4)), "model/large"),
              name_of(1));
    saver.close();
  }
}

TEST(Delta, StatisticsAreThoseOfTheFileThatHoldsTheTensor) {
  const auto dir = scratch();
  SaveOptions options = delta();
  {
    Saver without(world(), options);
    save(without, checkpoint_path(dir, 1), pieces_of(Cut::rows, 1), 1);
  }
  options.statistics = true;
  Saver saver(world(), options);
  save(saver, checkpoint_path(dir, 2), pieces_of(Cut::rows, 2), 2);  // the first has none to give
  save(saver, checkpoint_path(dir, 3), pieces_of(Cut::rows, 3), 3);
  const Manifest second = open_checkpoint(world(), checkpoint_path(dir, 2));
  const Manifest third = open_checkpoint(world(), checkpoint_path(dir, 3));
  EXPECT_EQ(second.files.size(), 1U);
  EXPECT_EQ(home_of(third, "model/large"), name_of(2));
  EXPECT_EQ(third.find("model/large")->statistics->sum_squares,
            second.find("model/large")->statistics->sum_squares);
  EXPECT_EQ(third.find("model/deep")->statistics->max, [&] {
    Saver whole(world(), options);
    save(whole, dir / "elsewhere" / name_of(3), pieces_of(Cut::rows, 3), 3);
    return open_checkpoint(world(), dir / "elsewhere" / name_of(3))
        .find("model/deep")
        ->statistics->max;
  }());
}

TEST(Delta, CompressedTensorsAreReferredToAsTheyAre) {
  const auto dir = scratch();
  SaveOptions options = delta(EngineKind::mpio);
  options.mpio.deflate = 1;
  Saver first(world(), options);
  save(first, checkpoint_path(dir, 1), pieces_of(Cut::columns, 1), 1);
  save(first, checkpoint_path(dir, 2), pieces_of(Cut::columns, 2), 2);
  Saver plain(world(), delta());
  save(plain, checkpoint_path(dir, 3), pieces_of(Cut::columns, 3), 3);
  for (const std::uint64_t step : {2, 3}) {
    const Manifest manifest = open_checkpoint(world(), checkpoint_path(dir, step));
    EXPECT_EQ(home_of(manifest, "model/large"), name_of(1));
    EXPECT_NE(manifest.find("model/large")->filters, 0);
    for (const EngineKind engine : {EngineKind::direct, EngineKind::mpio}) {
      LoadOptions load;
      load.engine = engine;
      EXPECT_TRUE(holds(checkpoint_path(dir, step), pieces_of(Cut::rows, step), load));
    }
  }
  detail::flatten_checkpoint(world(), open_checkpoint(world(), checkpoint_path(dir, 3)),
                             dir / "flat.h5", {});
  EXPECT_TRUE(holds(dir / "flat.h5", pieces_of(Cut::rows, 3)));
}

TEST(Flatten, OfADeltaOfFewerRanksThanItsBase) {
  const auto dir = scratch();
  Saver saver(world(), delta());
  save(saver, checkpoint_path(dir, 1), pieces_of(Cut::rows, 1), 1);
  const Comm self(MPI_COMM_SELF);
  on_root([&] {
    Saver alone(self, delta());
    save(alone, checkpoint_path(dir, 2), pieces_of(Cut::rows, 2, 1, self), 2, self);
  });
  const Manifest source = open_checkpoint(world(), checkpoint_path(dir, 2));
  ASSERT_EQ(source.files.size(), 2U);
  detail::flatten_checkpoint(world(), source, dir / "flat.h5", {});
  on_root([&] { fs::remove(checkpoint_path(dir, 1)); });
  EXPECT_TRUE(holds(dir / "flat.h5", pieces_of(Cut::rows, 2)));
}

TEST(Flatten, MakesOneFileOfWhatDeltasHold) {
  for (const Cut cut : {Cut::replicated, Cut::columns, Cut::grid, Cut::flat}) {
    const auto dir = scratch();
    Saver saver(world(), delta());
    save(saver, checkpoint_path(dir, 1), pieces_of(cut, 1), 1);
    save(saver, checkpoint_path(dir, 2), pieces_of(cut, 2), 2);
    const Manifest source = open_checkpoint(world(), checkpoint_path(dir, 2));
    if (cut == Cut::flat) {
      const Comm self(MPI_COMM_SELF);  // another number of ranks than the writers'
      on_root([&] { detail::flatten_checkpoint(self, source, dir / "flat.h5", {}); });
    } else {
      detail::flatten_checkpoint(world(), source, dir / "flat.h5", {});
    }
    expect_same_error(Errc::usage,
                      [&] { detail::flatten_checkpoint(world(), source, dir / "flat.h5", {}); });
    on_root([&] { fs::remove(checkpoint_path(dir, 1)); });
    EXPECT_TRUE(holds(dir / "flat.h5", pieces_of(Cut::rows, 2)));
    const Manifest flat = open_checkpoint(world(), dir / "flat.h5");
    EXPECT_EQ(flat.files.size(), 1U);
    EXPECT_EQ(flat.documents, source.documents);
    EXPECT_EQ(flat.commit.step, 2U);
    EXPECT_EQ(flat.commit.structure, source.commit.structure);
    EXPECT_EQ(load_rank_blob(world(), flat, "rng")->size(),
              6U + static_cast<unsigned>(world().rank()));
    ASSERT_EQ(flat.tensors.size(), source.tensors.size());
    for (std::size_t t = 0; t < flat.tensors.size(); ++t) {
      EXPECT_EQ(flat.tensors[t].content_digest(), source.tensors[t].content_digest());
    }
  }
}

}  // namespace
}  // namespace cairn
