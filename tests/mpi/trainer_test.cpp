// When a trainer saves and stops: decided together, at the same step on all ranks.
#include "cairn/trainer.hpp"

#include <chrono>
#include <cmath>
#include <csignal>
#include <optional>
#include <thread>
#include <vector>

#include "support/mpi_test.hpp"

namespace {

int reductions = 0;

}  // namespace

/// Stands before the one of the MPI library, which tools may do (MPI standard, "Profiling Interface").
extern "C" int MPI_Iallreduce(const void* from, void* to, int count, MPI_Datatype type, MPI_Op op,
                              MPI_Comm comm, MPI_Request* request) {
  ++reductions;
  return PMPI_Iallreduce(from, to, count, type, op, comm, request);
}

namespace cairn::test {
namespace {

/// A loop without a trainer: a schedule, a clock that each step moves on, and what was decided.
class Loop {
 public:
  explicit Loop(const SaveConfig& save, double step_seconds = 1)
      : step_seconds_(step_seconds), schedule(world(), save, [this] { return now; }) {}

  /// Steps until `last` or a stop, and notes the steps with saves.
  void run_to(std::uint64_t last) {
    while (step < last && schedule.stop_cause() == SaveCause::none) {
      now += step_seconds_;
      take(schedule.after_step(++step));
    }
  }

  void take(const SaveDecision& decision) {
    if (!decision.save()) return;
    causes.push_back(decision.cause);
    steps.push_back(step);
    weights_only = decision.weights_only;
    schedule.saved(0);
  }

 private:
  double step_seconds_;

 public:
  double now = 100;
  std::uint64_t step = 0;
  SaveSchedule schedule;
  std::vector<SaveCause> causes;
  std::vector<std::uint64_t> steps;
  bool weights_only = false;
};

int last_rank() { return world().size() - 1; }

using Steps = std::vector<std::uint64_t>;
using Causes = std::vector<SaveCause>;

TEST(SaveSchedule, StepsEpochsAndTheEndAreSavedOnce) {
  SaveConfig save;
  save.every_n_steps = 3;
  save.every_n_epochs = 2;
  Loop loop(save);
  loop.run_to(4);
  loop.take(loop.schedule.after_epoch(0));
  loop.run_to(8);
  loop.take(loop.schedule.after_epoch(1));
  loop.take(loop.schedule.after_epoch(1));
  EXPECT_EQ(loop.steps, (Steps{3, 6, 8}));
  EXPECT_EQ(loop.causes.back(), SaveCause::epochs);
  EXPECT_FALSE(loop.schedule.at_end().save()) << "step 8 is saved";
  loop.run_to(10);
  loop.take(loop.schedule.at_end());
  EXPECT_EQ(loop.steps, (Steps{3, 6, 8, 9, 10}));
  EXPECT_EQ(loop.causes.back(), SaveCause::end);
  EXPECT_FALSE(loop.schedule.at_end().save());
}

TEST(SaveSchedule, ARunThatTakesNoStepSavesNothing) {
  Loop fresh{SaveConfig{}};
  EXPECT_FALSE(fresh.schedule.at_end().save());
  Loop resumed{SaveConfig{}};
  resumed.schedule.resumed(7);
  EXPECT_FALSE(resumed.schedule.at_end().save());
}

TEST(SaveSchedule, AnEpochThatEndsAtASavedStepIsSavedWithIt) {
  for (const std::uint64_t every_n_epochs : {0U, 1U, 2U}) {
    SaveConfig save;
    save.every_n_steps = 3;
    save.every_n_epochs = every_n_epochs;
    Loop loop(save);
    loop.run_to(3);
    loop.take(loop.schedule.after_epoch(0));
    EXPECT_EQ(loop.steps, (Steps{3, 3})) << "a resume from the first one would lose the epoch's end";
    EXPECT_EQ(loop.causes, (Causes{SaveCause::steps, SaveCause::epochs}));
    loop.take(loop.schedule.after_epoch(0));
    EXPECT_FALSE(loop.schedule.at_end().save());
    loop.run_to(5);
    loop.take(loop.schedule.after_epoch(1));  // at a step that was not saved
    loop.run_to(6);
    EXPECT_EQ(loop.steps, every_n_epochs == 0 ? (Steps{3, 3, 6}) : (Steps{3, 3, 5, 6}));
  }
}

TEST(SaveSchedule, AnEpochsEndThatWasNotSavedIsSavedAtTheEnd) {
  SaveConfig save;
  save.every_n_steps = 3;
  Loop loop(save);
  loop.run_to(3);
  EXPECT_TRUE(loop.schedule.after_epoch(0).again);  // and left out
  loop.take(loop.schedule.at_end());
  EXPECT_EQ(loop.steps, (Steps{3, 3}));
  EXPECT_EQ(loop.causes.back(), SaveCause::end);
  EXPECT_FALSE(loop.schedule.at_end().save());
}

TEST(SaveSchedule, AnEpochThatEndsAtTheStepOfAStopIsSavedWithItWhereThereIsTime) {
  for (const double left : {1000.0, 30.0}) {
    SaveConfig save;
    save.preemption.grace_s = left;
    save.monitor = "loss";
    Loop loop(save);
    loop.schedule.measured(20);
    if (world().rank() == last_rank()) std::raise(SIGTERM);
    loop.run_to(100);
    EXPECT_FALSE(loop.weights_only);
    loop.now += 10;  // that the save took
    loop.take(loop.schedule.after_epoch(0));
    loop.take(loop.schedule.after_validation({{"loss", 1}}));
    EXPECT_FALSE(loop.schedule.at_end().save());
    EXPECT_EQ(loop.causes, left > 100 ? (Causes{SaveCause::signal, SaveCause::epochs,
                                                SaveCause::metric})
                                      : Causes{SaveCause::signal});
    EXPECT_FALSE(loop.weights_only);
  }
}

TEST(SaveSchedule, AfterAStopWithTheModelAloneNothingElseIsSaved) {
  SaveConfig save;
  save.preemption.grace_s = 30;
  save.every_n_epochs = 1;
  save.monitor = "loss";
  Loop loop(save);
  loop.schedule.measured(40);
  if (world().rank() == last_rank()) std::raise(SIGTERM);
  loop.run_to(100);
  EXPECT_TRUE(loop.weights_only);
  loop.take(loop.schedule.after_epoch(0));
  loop.take(loop.schedule.after_validation({{"loss", 1}}));
  loop.take(loop.schedule.at_end());
  EXPECT_EQ(loop.causes, Causes{SaveCause::signal});
}

TEST(SaveSchedule, DisabledSavesNothingAndStillStops) {
  SaveConfig save =
      Config::from_string("save: {enabled: false, every_n_steps: 2, every_n_epochs: 1, monitor: x}")
          .save;
  Loop loop(save);
  loop.run_to(1);
  loop.take(loop.schedule.after_epoch(0));
  loop.take(loop.schedule.after_validation({{"x", 1}}));
  if (world().rank() == last_rank()) std::raise(SIGUSR1);
  loop.run_to(1000);
  EXPECT_TRUE(loop.steps.empty());
  EXPECT_EQ(loop.schedule.stop_cause(), SaveCause::signal);
  EXPECT_FALSE(loop.schedule.at_end().save());
}

/// Where all ranks stop when the last one gets a signal after step 40.
std::uint64_t steps_to_stop(double step_seconds, int signal) {
  Loop loop(SaveConfig{}, step_seconds);
  loop.run_to(40);
  EXPECT_EQ(loop.schedule.stop_cause(), SaveCause::none);
  if (world().rank() == last_rank()) std::raise(signal);
  loop.run_to(100'000);
  EXPECT_EQ(loop.causes, Causes{SaveCause::signal});
  EXPECT_EQ(loop.schedule.signal(), signal);
  EXPECT_FALSE(loop.weights_only);
  EXPECT_TRUE(world().all_equal(loop.step)) << "every rank at the same step";
  EXPECT_FALSE(loop.schedule.at_end().save()) << "the step of the stop is saved once";
  return loop.step - 40;
}

TEST(SaveSchedule, ASignalOnOneRankStopsAllAtTheSameStep) {
  EXPECT_LE(steps_to_stop(2, SIGTERM), 2U);
  EXPECT_LE(steps_to_stop(0.01, SIGUSR1), 26U) << "a quarter of a second and a step";
  EXPECT_LE(steps_to_stop(1e-6, SIGTERM), 128U);
}

TEST(SaveSchedule, SignalsOnAllRanksAgainAndAgainStopThemOnce) {
  Loop loop(SaveConfig{}, 2);
  std::raise(SIGUSR1);  // before the first step
  std::raise(SIGTERM);
  loop.run_to(10);
  EXPECT_EQ(loop.causes, Causes{SaveCause::signal});
  EXPECT_LE(loop.step, 2U);
  const std::uint64_t at = loop.step;
  std::raise(SIGUSR1);
  std::raise(SIGTERM);
  loop.run_to(10);
  EXPECT_EQ(loop.step, at);
  EXPECT_FALSE(loop.schedule.at_end().save());
  EXPECT_TRUE(world().all_equal(loop.step));
}

TEST(SaveSchedule, AStepThatNeedsNothingSendsNothing) {
  SaveConfig save;  // everything that is agreed, and never comes
  save.every_minutes = 1e6;
  save.preemption.time_limit_s = 1e7;
  Loop loop(save, 0.001);
  reductions = 0;
  loop.run_to(1000);
  EXPECT_TRUE(loop.steps.empty());
  // One in 64 steps, and those in which it learns how long a step is.
  if (world().size() == 1) {
    EXPECT_EQ(reductions, 0);
  } else {
    EXPECT_GE(reductions, 15);
    EXPECT_LE(reductions, 20);
  }
}

TEST(SaveSchedule, ATimeThatIsOverAlreadyStopsAfterAStepOrTwo) {
  SaveConfig save;
  save.preemption.time_limit_s = 1e-9;
  Loop loop(save);
  EXPECT_TRUE(loop.schedule.may_run_short());
  loop.run_to(100);
  EXPECT_EQ(loop.causes, Causes{SaveCause::time_limit});
  EXPECT_LE(loop.step, 2U);
  EXPECT_TRUE(loop.weights_only);
}

TEST(SaveSchedule, AClockThatJumpsSavesOnceAndGoesOn) {
  SaveConfig save;
  save.every_minutes = 1;
  Loop loop(save, 5);
  EXPECT_FALSE(loop.schedule.may_run_short());
  loop.run_to(3);
  loop.now += 36'000;  // as after a suspension
  loop.run_to(9);
  EXPECT_EQ(loop.causes, Causes{SaveCause::minutes});
  loop.now -= 36'000;
  loop.run_to(20);
  EXPECT_EQ(loop.causes.size(), 1U);
}

TEST(SaveSchedule, EpochsAndValidationsBeforeAnyStepSaveNothing) {
  SaveConfig save;
  save.every_n_epochs = 1;
  save.monitor = "loss";
  Loop loop(save);
  EXPECT_FALSE(loop.schedule.after_epoch(0).save());
  EXPECT_FALSE(loop.schedule.after_validation({{"loss", 1}}).save());
  loop.run_to(1);
  loop.take(loop.schedule.after_epoch(1));
  EXPECT_EQ(loop.steps, Steps{1});
  loop.take(loop.schedule.after_epoch(2));  // without a step of its own, and yet an epoch later
  EXPECT_EQ(loop.steps, (Steps{1, 1}));
}

TEST(SaveSchedule, EqualMetricsAndNumbersThatAreNoneAreNoImprovement) {
  SaveConfig save;
  save.monitor = "loss";
  save.save_top_k = 2;
  Loop loop(save);
  for (const double loss : {std::nan(""), 3.0, 3.0, 3.0, std::nan(""), HUGE_VAL, 2.0}) {
    loop.run_to(loop.step + 1);
    loop.take(loop.schedule.after_validation({{"loss", loss}}));
  }
  EXPECT_EQ(loop.steps, (Steps{2, 3, 7}));
  Loop resumed(save);
  resumed.schedule.load(loop.schedule.state());
}

TEST(SaveSchedule, WithoutHandlersItTakesNoSignal) {
  SaveConfig save;
  save.preemption.signals = false;
  std::signal(SIGUSR1, SIG_IGN);
  Loop loop(save);
  std::raise(SIGUSR1);
  loop.run_to(5);
  EXPECT_EQ(loop.schedule.stop_cause(), SaveCause::none);
  std::signal(SIGUSR1, SIG_DFL);
}

TEST(SaveSchedule, MinutesGoByTheClockOfRankZero) {
  SaveConfig save;
  save.every_minutes = 1;
  Loop loop(save, world().is_root() ? 5 : 777);
  loop.run_to(60);  // five minutes of rank 0
  EXPECT_TRUE(loop.steps.size() == 4 || loop.steps.size() == 5) << loop.steps.size();
  for (const SaveCause cause : loop.causes) EXPECT_EQ(cause, SaveCause::minutes);
  for (std::size_t i = 1; i < loop.steps.size(); ++i) {
    EXPECT_GE(loop.steps[i] - loop.steps[i - 1], 12U) << "a minute from save to save";
  }
  EXPECT_TRUE(world().all_equal(loop.steps.empty() ? 0 : loop.steps.front()));
}

TEST(SaveSchedule, ASaveForAnotherReasonStartsTheMinutesAnew) {
  SaveConfig save;
  save.every_minutes = 1;
  save.every_n_steps = 12;  // a minute; the ranks have voted for a save when this one is made
  Loop loop(save, 5);
  loop.run_to(60);
  EXPECT_EQ(loop.steps, (Steps{12, 24, 36, 48, 60}));
}

TEST(SaveSchedule, StopsInTimeForASaveBeforeTheEnd) {
  SaveConfig save;
  save.preemption.time_limit_s = 100;
  save.preemption.lead_s = 5;
  Loop loop(save);
  loop.run_to(3);
  loop.schedule.measured(8);
  loop.run_to(1000);
  EXPECT_EQ(loop.causes, Causes{SaveCause::time_limit});
  EXPECT_LE(loop.step, 84U) << "at least twice the time of a save";
  EXPECT_GE(loop.step, 78U);
  EXPECT_FALSE(loop.weights_only);
  EXPECT_TRUE(world().all_equal(loop.step));
}

TEST(SaveSchedule, ASignalWithTooLittleTimeLeftSavesTheModelAlone) {
  SaveConfig save;
  save.preemption.grace_s = 30;
  for (const double seconds : {20.0, 40.0}) {
    Loop loop(save);
    loop.schedule.measured(seconds);
    if (world().rank() == last_rank()) std::raise(SIGTERM);
    loop.run_to(100);
    EXPECT_EQ(loop.causes, Causes{SaveCause::signal});
    EXPECT_EQ(loop.weights_only, seconds > 30) << seconds;
  }
}

TEST(SaveSchedule, AGraceRunsSinceTheSignalCame) {
  SaveConfig save;
  save.preemption.grace_s = 30;
  Loop slow(save, 10);  // several ranks vote at the end of a step, and know the result a step later
  slow.schedule.measured(18);
  if (world().rank() == last_rank()) std::raise(SIGTERM);
  slow.run_to(100);
  EXPECT_EQ(slow.causes, Causes{SaveCause::signal});
  EXPECT_EQ(slow.weights_only, world().size() > 1) << "22.5 s of what were 30 s at the vote";

  save.preemption.grace_s = 0.2;
  Loop loop(save, 1e-6);
  loop.schedule.measured(0.15);  // with a quarter to spare, 12.5 ms less than the grace
  if (world().rank() == last_rank()) std::raise(SIGTERM);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // in the middle of a step
  loop.run_to(100'000);
  EXPECT_TRUE(loop.weights_only) << "the clock of the steps does not tell when the signal came";
}

TEST(SaveSchedule, ImprovementsAreThoseOfRankZerosMetric) {
  SaveConfig save;
  save.monitor = "score";
  save.mode = MetricOrder::max;
  Loop loop(save);
  const auto validate = [&](double score) {
    loop.run_to(loop.step + 1);
    loop.take(loop.schedule.after_validation(
        {{"score", world().is_root() ? score : -100 * world().rank()}}));
  };
  for (const double score : {-3.0, -5.0, -2.0, -2.0}) validate(score);
  EXPECT_EQ(loop.steps, (Steps{1, 3}));
  Loop resumed(save);
  resumed.schedule.load(loop.schedule.state());
  resumed.run_to(1);
  EXPECT_FALSE(resumed.schedule.after_validation({{"score", -2.5}}).save())
      << "the best value of before the resume counts";
  const std::string text = expect_same_error(Errc::usage, [&] {
    loop.schedule.after_validation({{"loss", 1}});
  });
  EXPECT_NE(text.find("'score'"), std::string::npos) << text;
}

TEST(SaveSchedule, RanksThatStepDifferentlyAreAnError) {
  if (world().size() == 1) GTEST_SKIP() << "one rank can't differ";
  Loop loop{SaveConfig{}};
  loop.run_to(2);
  if (world().rank() == last_rank()) loop.step += 3;
  const std::string text = expect_same_error(Errc::mismatch, [&] {
    for (int i = 0; i < 4; ++i) loop.run_to(loop.step + 1);
  });
  EXPECT_NE(text.find("on_step_end"), std::string::npos) << text;
}

TEST(SaveSchedule, RanksWithOtherTriggersAreAnError) {
  if (world().size() == 1) GTEST_SKIP() << "one rank can't differ";
  SaveConfig save;
  save.every_n_steps = world().is_root() ? 1 : 2;
  expect_same_error(Errc::mismatch, [&] { SaveSchedule(world(), save); });
}

}  // namespace
}  // namespace cairn::test
