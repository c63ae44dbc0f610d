// SaveOptions::keep_last: what stays in a run's directory.
#include <fstream>
#include <set>

#include "cairn/checkpoint.hpp"
#include "support/delta_state.hpp"
#include "support/mpi_test.hpp"

namespace cairn {
namespace {

using namespace test;

SaveOptions keeping(std::uint64_t last) {
  SaveOptions options;
  options.durable = false;
  options.retention.keep_last = last;
  return options;
}

void save(Saver& saver, const std::filesystem::path& target, std::uint64_t step) {
  const auto pieces = sample_pieces(Cut::rows, world().size(), world().rank(), step);
  saver.save(target, sample_state(pieces, world().rank(), step));
}

void save_step(Saver& saver, const std::filesystem::path& dir, std::uint64_t step) {
  save(saver, checkpoint_path(dir, step), step);
}

TEST(Retain, KeepsTheLastOnesAndNothingIsLostBefore) {
  const auto dir = scratch();
  Saver saver(world(), keeping(2));
  save_step(saver, dir, 1);
  save_step(saver, dir, 2);
  EXPECT_EQ(files_in(dir), (std::set<std::string>{"last", name_of(1), name_of(2)}));
  save_step(saver, dir, 3);
  EXPECT_EQ(files_in(dir), (std::set<std::string>{"last", name_of(2), name_of(3)}));
  {
    // A save that fails takes nothing away.
    const ScopedFault fault("commit:0:error");
    expect_same_error(Errc::io, [&] { save_step(saver, dir, 4); });
  }
  EXPECT_EQ(files_in(dir), (std::set<std::string>{"last", name_of(2), name_of(3)}));
  save_step(saver, dir, 5);
  EXPECT_EQ(files_in(dir), (std::set<std::string>{"last", name_of(3), name_of(5)}));
  EXPECT_EQ(open_checkpoint(world(), dir / "last").commit.step, 5U);
}

TEST(Retain, ABareFileNameMeansTheCurrentDirectory) {
  const auto before = std::filesystem::current_path();
  const auto dir = scratch();
  std::filesystem::current_path(dir);
  {
    Saver saver(world(), keeping(1));
    for (std::uint64_t step = 1; step <= 3; ++step) save(saver, name_of(step), step);
  }
  std::filesystem::current_path(before);
  EXPECT_EQ(files_in(dir), (std::set<std::string>{"last", name_of(3)}));
}

TEST(Retain, ZeroKeepsAll) {
  const auto dir = scratch();
  Saver saver(world(), keeping(0));
  for (std::uint64_t step = 1; step <= 4; ++step) save_step(saver, dir, step);
  EXPECT_EQ(files_in(dir).size(), 5U);
}

TEST(Retain, TouchesCommittedCheckpointsOfStepsOnly) {
  const auto dir = scratch();
  Saver all(world(), keeping(0));
  save(all, dir / "pretrained.h5", 1);
  save_step(all, dir, 1);
  save_step(all, dir, 2);
  if (world().is_root()) {
    std::ofstream(dir / name_of(3)) << "no checkpoint";
    std::ofstream(dir / "step-1.h5") << "another name";
    std::filesystem::create_directory(dir / name_of(4));
    std::filesystem::create_symlink("pretrained.h5", dir / name_of(5));
  }
  const std::set<std::string> others{"last",     "pretrained.h5", name_of(3),
                                     name_of(4), name_of(5),      "step-1.h5"};
  Saver one(world(), keeping(1));
  save(one, dir / "elsewhere.h5", 9);  // not a step's name: removes nothing
  EXPECT_EQ(files_in(dir).size(), others.size() + 3);
  save_step(one, dir, 6);
  std::set<std::string> left = others;
  left.insert({name_of(6), "elsewhere.h5"});
  EXPECT_EQ(files_in(dir), left);
}

TEST(Retain, ARunThatWentBackKeepsItsNewCheckpointsAndTheHighestStep) {
  const auto dir = scratch();
  Saver all(world(), keeping(0));
  for (const std::uint64_t step : {100, 200, 300}) save_step(all, dir, step);
  // Commit records tell seconds; within one, steps decide. The new ones must be younger.
  const std::string before = open_checkpoint(world(), dir / name_of(300)).commit.committed_at;
  Saver two(world(), keeping(2));
  std::string now = before;
  while (now == before) {
    save(two, dir / "clock.h5", 1);
    now = open_checkpoint(world(), dir / "clock.h5").commit.committed_at;
  }
  save_step(two, dir, 110);
  save_step(two, dir, 120);
  EXPECT_EQ(files_in(dir),
            (std::set<std::string>{"last", "clock.h5", name_of(110), name_of(120), name_of(300)}));
}

TEST(Retain, WhatCantBeRemovedFailsNoSave) {
  const auto dir = scratch();
  Saver saver(world(), keeping(1));
  save_step(saver, dir, 1);
  {
    const ScopedFault fault("remove:0:full");
    save_step(saver, dir, 2);
  }
  EXPECT_EQ(files_in(dir), (std::set<std::string>{"last", name_of(1), name_of(2)}));
  save_step(saver, dir, 3);
  EXPECT_EQ(files_in(dir), (std::set<std::string>{"last", name_of(3)}));
}

TEST(Retain, SavesInTheBackgroundDoTheSame) {
  const auto dir = scratch();
  Saver saver(world(), keeping(1));
  for (std::uint64_t step = 1; step <= 3; ++step) {
    const auto pieces = sample_pieces(Cut::rows, world().size(), world().rank(), step);
    saver.save_async(checkpoint_path(dir, step), sample_state(pieces, world().rank(), step));
    saver.wait();
  }
  EXPECT_EQ(files_in(dir), (std::set<std::string>{"last", name_of(3)}));
  saver.close();
}

}  // namespace
}  // namespace cairn
