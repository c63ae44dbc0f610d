#include <bit>

#include "cairn/checkpoint.hpp"
#include "support/mpi_test.hpp"
#include "support/sample_state.hpp"
#include "support/save_faults.hpp"

namespace cairn {
namespace {

using namespace test;

SaveOptions with(OnFailure on_failure, WhenBusy when_busy = WhenBusy::wait) {
  SaveOptions options;
  options.async.on_failure = on_failure;
  options.async.when_busy = when_busy;
  return options;
}

/// Whether the background calls MPI itself; otherwise it gets on by polls alone.
bool has_threads() {
  int level = 0;
  MPI_Query_thread(&level);
  return level == MPI_THREAD_MULTIPLE;
}

bool holds(const std::filesystem::path& path, const std::vector<Piece>& wanted) {
  return wrong_pieces(world(), path, wanted).empty();
}

std::vector<Piece> pieces_of(Cut cut, std::uint64_t version = 1) {
  return sample_pieces(cut, world().size(), world().rank(), version);
}

void overwrite(std::vector<Piece>& pieces) {
  for (Piece& piece : pieces) std::fill(piece.bytes.begin(), piece.bytes.end(), std::byte{0x55});
}

/// More than the least budget holds: 48 MiB on every rank, split by columns so that it lies in rows
/// where the ranks are no regular grid.
std::vector<Piece> large_pieces() {
  std::vector<Piece> pieces;
  const auto size = static_cast<std::uint64_t>(world().size());
  const Shape shape{1024, 12 * 1024 * size + 1};
  Piece piece{
      "model/wide", DType::f32, Placement::split(shape, 1, world().size(), world().rank()), {}};
  piece.bytes.resize(piece.placement.elements() * 4);
  for (std::size_t i = 0; i < piece.bytes.size(); ++i) {
    piece.bytes[i] =
        static_cast<std::byte>(i * 7 + i / 4096 + static_cast<std::size_t>(world().rank()));
  }
  pieces.push_back(std::move(piece));
  return pieces;
}

TEST(Async, ASnapshotKeepsWhatTheStateWas) {
  const auto dir = scratch();
  Saver saver(world(), with(OnFailure::fatal));
  std::uint64_t step = 0;
  for (const Cut cut : kAllCuts) {
    const auto path = checkpoint_path(dir, ++step);
    auto pieces = pieces_of(cut);
    const AsyncSave save = saver.save_async(path, sample_state(pieces, world().rank(), step));
    EXPECT_TRUE(save.staged());
    EXPECT_EQ(save.step(), step);
    overwrite(pieces);
    saver.wait();
    EXPECT_TRUE(save.durable());
    EXPECT_FALSE(save.error().has_value());
    EXPECT_TRUE(holds(path, pieces_of(cut))) << to_string(cut);
    const Manifest manifest = open_checkpoint(world(), path);
    EXPECT_TRUE(verify_tensors(world(), manifest).defects.empty());
    EXPECT_EQ(manifest.commit.step, step);
  }
  EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, step));
}

TEST(Async, PollsAreEnoughToFinish) {
  const auto dir = scratch();
  Saver saver(world(), with(OnFailure::fatal));
  const auto pieces = pieces_of(Cut::rows);
  const AsyncSave save =
      saver.save_async(checkpoint_path(dir, 1), sample_state(pieces, world().rank(), 1));
  for (std::uint64_t waits[1] = {1}; waits[0] != 0;) {
    saver.poll();
    waits[0] = save.durable() ? 0 : 1;
    world().all_reduce_max(std::span<std::uint64_t>(waits));
  }
  EXPECT_TRUE(holds(checkpoint_path(dir, 1), pieces));
}

TEST(Async, WhatDoesNotFitTheBudgetStreams) {
  const auto dir = scratch();
  SaveOptions options = with(OnFailure::fatal);
  // Only rank 0 is short of memory; the others must not run away from it.
  options.async.budget_bytes = world().is_root() ? 16 << 20 : 0;
  Saver saver(world(), options);
  auto pieces = large_pieces();
  const AsyncSave save =
      saver.save_async(checkpoint_path(dir, 1), sample_state(pieces, world().rank(), 1));
  EXPECT_GT(save.times().bytes, std::uint64_t{40} << 20);
  EXPECT_GT(save.times().stalled_s, 0);
  EXPECT_GT(save.times().call_s, save.times().stalled_s) << "it made the layout, too";
  EXPECT_GT(save.times().predicted_s, 0);
  EXPECT_TRUE(world().all_equal(std::bit_cast<std::uint64_t>(save.times().predicted_s)))
      << "all ranks wait for the slowest one";
  overwrite(pieces);
  saver.wait();
  EXPECT_TRUE(holds(checkpoint_path(dir, 1), large_pieces()));
}

TEST(Async, AnImpossibleBudgetIsRefused) {
  SaveOptions options = with(OnFailure::fatal);
  options.async.budget_bytes = 1 << 20;
  Saver saver(world(), options);
  const auto pieces = pieces_of(Cut::rows);
  const auto dir = scratch();
  expect_same_error(Errc::usage, [&] {
    saver.save_async(checkpoint_path(dir, 1), sample_state(pieces, world().rank(), 1));
  });
  options.async.budget_bytes = 0;
  options.engine = EngineKind::mpio;
  Saver other(world(), options);
  const std::string text = expect_same_error(Errc::usage, [&] {
    other.save_async(checkpoint_path(dir, 1), sample_state(pieces, world().rank(), 1));
  });
  EXPECT_NE(text.find("direct"), std::string::npos) << text;
  EXPECT_FALSE(newest_checkpoint(dir).has_value());
}

TEST(Async, AFailureIsToldOnAllRanksAndHarmsNothing) {
  const auto dir = scratch();
  Saver saver(world(), with(OnFailure::fatal));
  const auto pieces = pieces_of(Cut::rows);
  saver.save(checkpoint_path(dir, 1), sample_state(pieces, world().rank(), 1));
  const auto save_again = [&] {
    saver.save_async(checkpoint_path(dir, 2), sample_state(pieces, world().rank(), 2));
    saver.wait();
  };
  const auto expect_nothing_left = [&] {
    EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 1));
    EXPECT_FALSE(std::filesystem::exists(dir / ".step-00000002.h5.partial"));
    saver.wait();  // the error is told once
  };
  const std::string last = std::to_string(world().size() - 1);
  auto faults = save_faults({"stage"});
  faults.push_back({"move.write:" + last + ":full", last});
  for (const auto& [rule, rank] : faults) {
    const ScopedFault fault(rule);
    const std::string text = expect_same_error(Errc::io, save_again);
    EXPECT_NE(text.find("rank " + rank), std::string::npos) << text;
    if (rule.starts_with("stage")) {
      // Told by the call itself; the background's side of it follows.
      expect_same_error(Errc::usage, [&] { saver.wait(); });
    }
    expect_nothing_left();
  }
  EXPECT_GE(fill_disk_at_each_commit_write(save_again, expect_nothing_left), 7);
  EXPECT_TRUE(holds(checkpoint_path(dir, 2), pieces));
}

TEST(Async, ACopyThatFailsWhileItStreamsIsToldOnAllRanksAndHarmsNothing) {
  const auto dir = scratch();
  SaveOptions options = with(OnFailure::fatal);
  options.async.budget_bytes = 16 << 20;
  options.durable = false;
  Saver saver(world(), options);
  const auto large = large_pieces();
  const std::string last = std::to_string(world().size() - 1);
  // Before the room is full, when it is, and when the background has made room again. Parts are
  // smaller where the piece lies in rows.
  const std::string late = world().size() == 1 ? "4" : "20";
  for (const std::string& pass : {"stage.part:" + last + ":error", "stage.full:" + last + ":error",
                                  "stage.part:" + last + ":error:" + late}) {
    const ScopedFault fault(pass);
    const std::string text = expect_same_error(Errc::io, [&] {
      saver.save_async(checkpoint_path(dir, 1), sample_state(large, world().rank(), 1));
    });
    EXPECT_NE(text.find("rank " + last), std::string::npos) << text;
    // Told by the call itself; the background's side of it follows, on the ranks that are fine,
    // too.
    expect_same_error(Errc::usage, [&] { saver.wait(); });
    EXPECT_FALSE(newest_checkpoint(dir).has_value()) << pass;
    EXPECT_FALSE(std::filesystem::exists(dir / ".step-00000001.h5.partial")) << pass;
  }
  {
    const ScopedFault fault("move.write:" + last + ":full");
    saver.save_async(checkpoint_path(dir, 1), sample_state(large, world().rank(), 1));
    const std::string text = expect_same_error(Errc::io, [&] { saver.wait(); });
    EXPECT_NE(text.find("No space left"), std::string::npos) << text;
    EXPECT_FALSE(newest_checkpoint(dir).has_value());
  }
  const auto pieces = pieces_of(Cut::rows);
  saver.save_async(checkpoint_path(dir, 1), sample_state(pieces, world().rank(), 1));
  saver.wait();
  EXPECT_TRUE(holds(checkpoint_path(dir, 1), pieces));
}

TEST(Async, WhatADiskWritesShortIsCompletedAndWhatItGetsWrongIsFound) {
  const auto dir = scratch();
  Saver saver(world(), with(OnFailure::fatal));
  const auto pieces = pieces_of(Cut::columns);
  const std::string last = std::to_string(world().size() - 1);
  for (const std::string action : {"short", "flip"}) {
    const ScopedFault fault("move.write:" + last + ":" + action);
    saver.save_async(checkpoint_path(dir, 1), sample_state(pieces, world().rank(), 1));
    saver.wait();
    if (action == "short") {
      EXPECT_TRUE(holds(checkpoint_path(dir, 1), pieces));
      continue;
    }
    const std::string text =
        expect_same_error(Errc::corrupt, [&] { holds(checkpoint_path(dir, 1), pieces); });
    EXPECT_NE(text.find("written by rank " + last), std::string::npos) << text;
  }
}

TEST(Async, AFailureCanBeAWarningOrTriedAgain) {
  const auto dir = scratch();
  const auto pieces = pieces_of(Cut::columns);
  const std::string last = std::to_string(world().size() - 1);
  {
    Saver saver(world(), with(OnFailure::warn));
    const ScopedFault fault("move.end:" + last + ":error");
    const AsyncSave save =
        saver.save_async(checkpoint_path(dir, 1), sample_state(pieces, world().rank(), 1));
    saver.wait();
    ASSERT_TRUE(save.error().has_value());
    EXPECT_EQ(save.error()->code(), Errc::io);
    EXPECT_FALSE(save.durable());
    saver.close();
  }
  Saver saver(world(), with(OnFailure::retry));
  for (const std::string point : {"preflight", "move", "move.end", "durable", "commit"}) {
    const ScopedFault fault(point + ":" + last + ":error");
    const auto path = checkpoint_path(dir, 2);
    const AsyncSave save = saver.save_async(path, sample_state(pieces, world().rank(), 2));
    saver.wait();
    EXPECT_TRUE(save.durable()) << point;
    EXPECT_TRUE(holds(path, pieces)) << point;
  }
  const ScopedFault fault("move:" + last + ":error,move.end:" + last + ":error");
  saver.save_async(checkpoint_path(dir, 3), sample_state(pieces, world().rank(), 3));
  expect_same_error(Errc::io, [&] { saver.wait(); });
  EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 2));
}

TEST(Async, ABusySaverWaitsSkipsOrQueues) {
  const auto dir = scratch();
  const auto pieces = pieces_of(Cut::grid);
  for (const WhenBusy when_busy : {WhenBusy::wait, WhenBusy::skip, WhenBusy::queue}) {
    const auto run = dir / std::to_string(static_cast<int>(when_busy));
    Saver saver(world(), with(OnFailure::fatal, when_busy));
    std::vector<AsyncSave> saves;
    for (std::uint64_t step = 1; step <= 5; ++step) {
      saves.push_back(
          saver.save_async(checkpoint_path(run, step), sample_state(pieces, world().rank(), step)));
      if (step == 2 && !has_threads()) {
        // One poll is not enough for a save: the first one can't be done unless the call waited.
        EXPECT_EQ(saves[0].durable(), when_busy == WhenBusy::wait);
        EXPECT_EQ(saves[1].skipped(), when_busy == WhenBusy::skip);
      }
      if (when_busy == WhenBusy::queue && step > 2) {
        EXPECT_TRUE(saves[step - 3].durable()) << "two are on their way at most";
      }
    }
    saver.wait();
    for (std::uint64_t step = 1; step <= 5; ++step) {
      const AsyncSave& save = saves[step - 1];
      EXPECT_EQ(save.durable(), !save.skipped());
      EXPECT_EQ(std::filesystem::exists(checkpoint_path(run, step)), !save.skipped());
      EXPECT_TRUE(when_busy == WhenBusy::skip || !save.skipped());
      EXPECT_TRUE(save.skipped() || holds(checkpoint_path(run, step), pieces));
    }
    EXPECT_FALSE(saves.front().skipped());
    saver.close();
  }
}

TEST(Async, AnotherStructureMayFollowAtOnce) {
  const auto dir = scratch();
  Saver saver(world(), with(OnFailure::fatal, WhenBusy::queue));
  std::uint64_t step = 0;
  for (const Cut cut : kAllCuts) {
    auto pieces = pieces_of(cut);
    ++step;
    saver.save_async(checkpoint_path(dir, step), sample_state(pieces, world().rank(), step));
    overwrite(pieces);
  }
  // A save in the foreground comes after those in the background.
  const auto pieces = pieces_of(Cut::rows);
  saver.save(checkpoint_path(dir, 100), sample_state(pieces, world().rank(), 100));
  EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 100));
  step = 0;
  for (const Cut cut : kAllCuts) EXPECT_TRUE(holds(checkpoint_path(dir, ++step), pieces_of(cut)));
}

TEST(Async, PreparingMakesTheFirstSaveLikeLaterOnes) {
  const auto dir = scratch();
  Saver saver(world(), with(OnFailure::fatal));
  const auto pieces = pieces_of(Cut::rows);
  saver.prepare(checkpoint_path(dir, 1), sample_state(pieces, world().rank(), 1));
  EXPECT_FALSE(newest_checkpoint(dir).has_value());
  // A fault where the layout is made would now strike only if it were made again.
  const ScopedFault fault("layout:0:error");
  saver.save_async(checkpoint_path(dir, 1), sample_state(pieces, world().rank(), 1));
  saver.wait();
  EXPECT_TRUE(holds(checkpoint_path(dir, 1), pieces));
}

TEST(Async, ASaverThatEndsLeavesWholeCheckpointsOnly) {
  const auto dir = scratch();
  const auto pieces = pieces_of(Cut::rows);
  {
    Saver saver(world(), with(OnFailure::fatal));
    saver.save_async(checkpoint_path(dir, 1), sample_state(pieces, world().rank(), 1));
  }
  world().all_equal(0);
  const bool completed = newest_checkpoint(dir).has_value();
  EXPECT_EQ(completed, has_threads());
  world().all_equal(0);
  EXPECT_FALSE(std::filesystem::exists(dir / ".step-00000001.h5.partial"));
  EXPECT_TRUE(!completed || holds(checkpoint_path(dir, 1), pieces));
}

}  // namespace
}  // namespace cairn
