// A run's directory: the lease, the guard against restarts without progress, and which checkpoint
// a load falls back to.
#include "cairn/run.hpp"

#include <cstdlib>
#include <fstream>
#include <set>

#include "cairn/checkpoint.hpp"
#include "cairn/source.hpp"
#include "checkpoint/marks.hpp"
#include "checkpoint/usable.hpp"
#include "manifest/names.hpp"
#include "support/delta_state.hpp"

namespace cairn {
namespace {

using namespace test;
namespace fs = std::filesystem;

SaveOptions keeping(RetentionPolicy policy) {
  SaveOptions options;
  options.durable = false;
  options.retention = policy;
  return options;
}

void save_step(const fs::path& dir, std::uint64_t step, const SaveOptions& options = keeping({})) {
  const auto pieces = sample_pieces(Cut::rows, world().size(), world().rank(), step);
  Saver(world(), options)
      .save(checkpoint_path(dir, step), sample_state(pieces, world().rank(), step));
}

/// Changes one byte in the middle of the data of a tensor.
void damage(const fs::path& path) {
  const Manifest manifest = open_checkpoint(world(), path);
  if (world().is_root()) {
    const TensorEntry* largest = &manifest.tensors[0];
    for (const TensorEntry& tensor : manifest.tensors.all()) {
      if (tensor.bytes() > largest->bytes()) largest = &tensor;
    }
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const auto at = static_cast<std::streamoff>(largest->extents[0].offset);
    file.seekg(at);
    const int byte = file.get();
    file.seekp(at);
    file.put(static_cast<char>(~byte));
  }
  world().all_equal(0);
}

/// Loads everything as a trainer does; the step that it got.
std::uint64_t load_newest(const Source& source, const SourceSettings& settings = {}) {
  for (;;) {
    const fs::path path = resolve_source(world(), source, settings);
    try {
      const Manifest manifest = open_checkpoint(world(), path);
      auto pieces = sample_pieces(Cut::flat, world().size(), world().rank(), 0);
      std::vector<MutableTensorView> targets;
      for (Piece& piece : pieces) {
        targets.push_back({piece.name, piece.dtype, piece.placement, piece.bytes.data()});
      }
      load_tensors(world(), manifest, targets);
      const auto wanted =
          sample_pieces(Cut::flat, world().size(), world().rank(), manifest.commit.step);
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        EXPECT_EQ(pieces[i].bytes, wanted[i].bytes) << wanted[i].name;
      }
      return manifest.commit.step;
    } catch (const Error& error) {
      if (!skip_damaged(world(), source, settings, path, error)) throw;
    }
  }
}

TEST(RunLease, TheSecondIsRefusedOnAllRanksAndTheFirstGoesOn) {
  const auto dir = scratch() / "run";
  {
    RunLease first(world(), dir);
    const std::string text = expect_same_error(Errc::refused, [&] { RunLease(world(), dir); });
    EXPECT_NE(text.find("is in use by"), std::string::npos) << text;
    first.require(world());
  }
  RunLease next(world(), dir);
  next.require(world());
  next.release();
  world().all_equal(0);
  EXPECT_TRUE(fs::is_empty(dir));
}

TEST(RunLease, OneThatWasRemovedIsMissedByAllRanks) {
  const auto dir = scratch();
  RunLease held(world(), dir, {.heartbeat = std::chrono::milliseconds(1)});
  if (world().is_root()) {
    fs::remove(dir / detail::names::kLease);
    while (!held.lost()) continue;
  }
  expect_same_error(Errc::refused, [&] { held.require(world()); });
}

TEST(RunLease, ADirectoryThatCannotBeMadeIsAnErrorOnAllRanks) {
  const auto dir = scratch();
  if (world().is_root()) std::ofstream(dir / "file") << "x";
  world().all_equal(0);
  expect_same_error(Errc::not_found, [&] { RunLease(world(), dir / "file"); });
}

TEST(RestartGuard, StopsARunThatGetsNoFurther) {
  const auto dir = scratch();
  const RestartGuard guard(dir, 2);
  guard.begin(world(), std::nullopt);
  guard.begin(world(), std::nullopt);
  guard.begin(world(), 100);  // progress
  guard.begin(world(), 100);
  guard.begin(world(), 90);  // fell back
  const std::string text = expect_same_error(Errc::refused, [&] { guard.begin(world(), 90); });
  for (const char* part : {"3 times", "step 90", "max_restarts", ".restarts"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in: " << text;
  }
  expect_same_error(Errc::refused, [&] { guard.begin(world(), 90); });
  RestartGuard(dir, 0).begin(world(), 90);
  guard.begin(world(), 91);
  guard.begin(world(), 91);
  guard.begin(world(), 91);
  guard.finish(world());
  world().all_equal(0);
  EXPECT_TRUE(fs::is_empty(dir));
  world().all_equal(0);
  guard.begin(world(), 91);
}

TEST(RestartGuard, AStartThatHasANameIsCountedOnce) {
  const auto dir = scratch();
  const RestartGuard script(dir, 1);
  const RestartGuard trainer(dir, 3);
  for (const char* name : {"job-0", "job-1"}) {
    setenv("CAIRN_START", name, 1);
    script.begin(world(), 5);
    trainer.begin(world(), 5);
    trainer.begin(world(), 5);
  }
  setenv("CAIRN_START", "job-2", 1);
  expect_same_error(Errc::refused, [&] { script.begin(world(), 5); });
  // The trainer has another limit.
  trainer.begin(world(), 5);
  expect_same_error(Errc::refused, [&] { script.begin(world(), 5); });
  setenv("CAIRN_START", "job-3", 1);
  trainer.begin(world(), 5);
  setenv("CAIRN_START", "job-4", 1);
  expect_same_error(Errc::refused, [&] { trainer.begin(world(), 5); });
  script.begin(world(), 6);  // progress
  trainer.begin(world(), 6);
  unsetenv("CAIRN_START");
  script.begin(world(), 6);
  expect_same_error(Errc::refused, [&] { script.begin(world(), 6); });
}

TEST(RestartGuard, ACountThatIsDamagedIsNone) {
  const auto dir = scratch();
  const std::string too_long(70'000, ' ');
  for (const std::string& text : std::vector<std::string>{"", "{", "{\"step\": \"x\"}", too_long}) {
    if (world().is_root()) std::ofstream(dir / detail::names::kRestarts) << text;
    const RestartGuard guard(dir, 1);
    guard.begin(world(), 1);
    guard.begin(world(), 1);
    expect_same_error(Errc::refused, [&] { guard.begin(world(), 1); });
  }
}

TEST(Fallback, ADamagedNewestIsMarkedAndTheNextOneTaken) {
  const auto dir = scratch();
  for (const std::uint64_t step : {1, 2, 3}) save_step(dir, step);
  damage(checkpoint_path(dir, 3));
  EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 3));
  world().all_equal(0);
  EXPECT_EQ(load_newest(LocalSource{dir}), 2U);
  EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 2));
  const auto mark = detail::bad_mark_of(checkpoint_path(dir, 3));
  ASSERT_TRUE(mark.has_value());
  EXPECT_NE(mark->reason.find("digest"), std::string::npos) << mark->reason;
  // The next start does not even look at it.
  EXPECT_EQ(resolve_source(world(), LocalSource{dir}), checkpoint_path(dir, 2));
  EXPECT_EQ(resolve_source(world(), RunSource{dir.parent_path(), dir.filename().string()}),
            checkpoint_path(dir, 2));
  // Saved again it is another file, which the mark is not about.
  save_step(dir, 3);
  EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 3));
  EXPECT_EQ(load_newest(LocalSource{dir}), 3U);
}

/// Checkpoints of the steps 1 to 3: the later ones take from the first all but a few small tensors,
/// which change from step to step.
void save_deltas(const fs::path& dir) {
  Saver saver(world(), delta());
  for (const std::uint64_t step : {1, 2, 3}) {
    save(saver, checkpoint_path(dir, step), pieces_of(Cut::rows, step), step);
  }
}

TEST(Fallback, TheFileThatHoldsTheDamageIsMarkedAndWhatTakesItIsPassedOver) {
  const auto dir = scratch();
  const auto base = checkpoint_path(dir, 1);
  save_deltas(dir);
  save_step(dir, 0);  // needs nothing
  damage(base);       // in a tensor that all three take from there
  EXPECT_EQ(load_newest(LocalSource{dir}), 0U);
  EXPECT_TRUE(detail::bad_mark_of(base).has_value());
  for (const std::uint64_t step : {2, 3}) {
    const auto path = checkpoint_path(dir, step);
    EXPECT_FALSE(detail::bad_mark_of(path).has_value()) << "its own bytes are right";
    const auto why = detail::unusable_mark_of(path, false);
    ASSERT_TRUE(why.has_value()) << step;
    EXPECT_NE(why->reason.find(name_of(1)), std::string::npos) << why->reason;
  }
  EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 0));
  // Put back, it is what all three need.
  world().all_equal(0);
  on_root([&] { detail::mark_verified(base); });
  EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 3));
}

TEST(Fallback, DamageInATensorThatNobodyElseTakesConcernsTheFileAlone) {
  const auto dir = scratch();
  save_deltas(dir);
  on_root([&] {
    // All have a "model/deep" of their own.
    detail::mark_bad(checkpoint_path(dir, 1), "for a test", {"model/deep"});
  });
  EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 3));
  EXPECT_EQ(resolve_source(world(), LocalSource{dir}), checkpoint_path(dir, 3));
  // What is known of a file adds up.
  on_root([&] { detail::mark_bad(checkpoint_path(dir, 1), "again", {"model/counting.0"}); });
  const auto mark = detail::bad_mark_of(checkpoint_path(dir, 1));
  ASSERT_TRUE(mark && mark->tensors);
  EXPECT_EQ(*mark->tensors, (std::vector<std::string>{"model/counting.0", "model/deep"}));
  // Too many to be listed: it may be any.
  on_root([&] {
    std::vector<std::string> many;
    for (int i = 0; i < 10'000; ++i) many.push_back("model/deep." + std::to_string(i));
    detail::mark_bad(checkpoint_path(dir, 1), "many", many);
  });
  EXPECT_TRUE(detail::bad_mark_of(checkpoint_path(dir, 1)).has_value());
  EXPECT_TRUE(detail::unusable_mark_of(checkpoint_path(dir, 3), false).has_value());
  world().all_equal(0);
}

TEST(Fallback, AFileThatLostItsEndIsPassedOver) {
  const auto dir = scratch();
  for (const std::uint64_t step : {1, 2}) save_step(dir, step);
  const auto newest = checkpoint_path(dir, 2);
  if (world().is_root()) fs::resize_file(newest, fs::file_size(newest) / 2);
  world().all_equal(0);
  EXPECT_EQ(load_newest(LocalSource{dir}), 1U);
  EXPECT_TRUE(detail::bad_mark_of(newest).has_value());
}

TEST(Fallback, WhenAllAreBadTheErrorNamesThemAndNoRunStartsAnew) {
  const auto dir = scratch();
  for (const std::uint64_t step : {1, 2}) {
    save_step(dir, step);
    damage(checkpoint_path(dir, step));
  }
  const std::string text = expect_same_error(Errc::corrupt, [&] { load_newest(LocalSource{dir}); });
  EXPECT_NE(text.find("step-00000001.h5"), std::string::npos) << text;
  EXPECT_NE(text.find("step-00000002.h5"), std::string::npos) << text;
  EXPECT_EQ(newest_checkpoint(dir), checkpoint_path(dir, 2));
}

TEST(Fallback, NamedFilesAndThoseWhoDoNotWantItGetTheError) {
  const auto dir = scratch();
  for (const std::uint64_t step : {1, 2}) save_step(dir, step);
  const auto newest = checkpoint_path(dir, 2);
  damage(newest);
  SourceSettings strict;
  strict.fallback = false;
  expect_same_error(Errc::corrupt, [&] { load_newest(LocalSource{newest}); });
  expect_same_error(Errc::corrupt, [&] { load_newest(LocalSource{dir}, strict); });
  EXPECT_FALSE(detail::bad_mark_of(newest).has_value());
  // What is no damage marks nothing.
  const Error other(Errc::io, "a disk", 0);
  EXPECT_FALSE(skip_damaged(world(), LocalSource{dir}, {}, newest, other));
  save_step(dir, 3);
  const Error refused(Errc::corrupt, "a program that does not understand a document", 0);
  EXPECT_FALSE(skip_damaged(world(), LocalSource{dir}, {}, checkpoint_path(dir, 3), refused));
  EXPECT_FALSE(detail::bad_mark_of(checkpoint_path(dir, 3)).has_value());
  EXPECT_FALSE(detail::bad_mark_of(newest).has_value());
}

TEST(Fallback, AMarkThatCannotBeWrittenEndsInTheError) {
  const auto dir = scratch();
  for (const std::uint64_t step : {1, 2}) save_step(dir, step);
  damage(checkpoint_path(dir, 2));
  const ScopedFault fault("mark.write:0:full");
  expect_same_error(Errc::corrupt, [&] { load_newest(LocalSource{dir}); });
}

TEST(Fallback, AMarkEndsWhenTheFileIsReplaced) {
  const auto dir = scratch();
  save_step(dir, 1);
  const auto path = checkpoint_path(dir, 1);
  if (world().is_root()) {
    detail::mark_bad(path, "for a test");
    EXPECT_TRUE(detail::bad_mark_of(path).has_value());
    detail::mark_verified(path);
    EXPECT_FALSE(detail::bad_mark_of(path).has_value());
    EXPECT_TRUE(detail::verified_mark_of(path).has_value());
    detail::mark_bad(path, "for a test");
    EXPECT_FALSE(detail::verified_mark_of(path).has_value());
    // Brought back from elsewhere: the same size and edges, another time.
    fs::copy_file(path, dir / "copy");
    fs::last_write_time(dir / "copy", fs::last_write_time(path) + std::chrono::seconds(5));
    fs::rename(dir / "copy", path);
    EXPECT_FALSE(detail::bad_mark_of(path).has_value());
  }
}

/// The steps whose checkpoints are there, once rank 0 has returned from its save.
std::set<std::uint64_t> steps_in(const fs::path& dir) {
  world().all_equal(0);
  std::set<std::uint64_t> steps;
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (auto step = detail::names::parse_checkpoint_file(entry.path().filename().string())) {
      steps.insert(*step);
    }
  }
  world().all_equal(0);
  return steps;
}

void save_loss(const fs::path& dir, std::uint64_t step, double loss, RetentionPolicy policy) {
  const auto pieces = sample_pieces(Cut::rows, world().size(), world().rank(), step);
  StateView state = sample_state(pieces, world().rank(), step);
  state.documents["context"] = R"({"epoch": 1, "metrics": {"loss": )" + std::to_string(loss) + "}}";
  Saver(world(), keeping(policy)).save(checkpoint_path(dir, step), state);
}

TEST(Retention, BestOnesAndMultiplesAreReadFromTheCheckpoints) {
  const auto dir = scratch();
  const RetentionPolicy policy{
      .keep_last = 1, .keep_every_n_steps = 4, .keep_best = {1, "loss", MetricOrder::min}};
  const double losses[] = {3, 1, 2, 4, 5, 6};
  for (std::uint64_t step = 1; step <= 6; ++step) save_loss(dir, step, losses[step - 1], policy);
  EXPECT_EQ(steps_in(dir), (std::set<std::uint64_t>{2, 4, 6}));
}

TEST(Retention, PinnedVerifiedAndBadOnesStay) {
  const auto dir = scratch();
  for (std::uint64_t step = 1; step <= 5; ++step) save_step(dir, step);
  if (world().is_root()) {
    detail::pin(checkpoint_path(dir, 1));
    detail::mark_verified(checkpoint_path(dir, 2));
    detail::mark_bad(checkpoint_path(dir, 3), "for a test");
  }
  world().all_equal(0);
  save_step(dir, 6, keeping({.keep_last = 1}));
  EXPECT_EQ(steps_in(dir), (std::set<std::uint64_t>{1, 2, 3, 6}));
  if (world().is_root()) {
    EXPECT_TRUE(detail::unpin(checkpoint_path(dir, 1)));
    detail::mark_verified(checkpoint_path(dir, 6));
  }
  world().all_equal(0);
  save_step(dir, 7, keeping({.keep_last = 1}));
  EXPECT_EQ(steps_in(dir), (std::set<std::uint64_t>{3, 6, 7}));
  EXPECT_FALSE(fs::exists(detail::names::verified_mark(checkpoint_path(dir, 2))));
}

TEST(Retention, WhatTakesDamagedTensorsIsNoneOfTheLastOnes) {
  const auto dir = scratch();
  save_deltas(dir);
  save_step(dir, 0);
  on_root([&] { detail::mark_bad(checkpoint_path(dir, 1), "for a test", {"model/large"}); });
  // Steps 1 to 3 are bad: they stay until somebody removes them, and do not count.
  save_step(dir, 4, keeping({.keep_last = 2}));
  EXPECT_EQ(steps_in(dir), (std::set<std::uint64_t>{0, 1, 2, 3, 4}));
}

TEST(Retention, MarksWhoseCheckpointIsGoneGo) {
  const auto dir = scratch();
  save_step(dir, 1);
  {
    // As a kill between the two removals leaves it.
    if (world().is_root()) detail::mark_verified(checkpoint_path(dir, 1));
    world().all_equal(0);
    if (world().is_root()) fs::remove(checkpoint_path(dir, 1));
    world().all_equal(0);
  }
  save_step(dir, 2, keeping({.keep_last = 1}));
  world().all_equal(0);
  EXPECT_FALSE(fs::exists(detail::names::verified_mark(checkpoint_path(dir, 1))));
}

}  // namespace
}  // namespace cairn
