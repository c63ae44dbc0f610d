// What decides about saves, piece by piece, and what of a trainer's state needs no LibTorch.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "cairn/error.hpp"
#include "cairn/state.hpp"
#include "os/child.hpp"
#include "os/signals.hpp"
#include "trainer/best.hpp"
#include "trainer/budget.hpp"
#include "trainer/limit_watch.hpp"
#include "trainer/slurm.hpp"
#include "trainer/votes.hpp"

namespace cairn {
namespace {

using namespace detail;

TEST(Cadence, VotesAreRareWhereStepsAreShortAndComeEachStepWhereTheyAreLong) {
  EXPECT_EQ(Cadence::of(30).interval, 1U);
  EXPECT_EQ(Cadence::of(30).flight, 1U);
  EXPECT_EQ(Cadence::of(0.01).interval, 25U);
  EXPECT_EQ(Cadence::of(0.01).flight, 1U);
  for (const double tiny : {1e-4, 1e-7, 0.0}) {
    const Cadence cadence = Cadence::of(tiny);
    EXPECT_EQ(cadence.interval, Cadence::kMost) << tiny;
    EXPECT_GT(cadence.flight, 1U) << tiny;
    EXPECT_LE(cadence.flight, cadence.interval) << tiny;
  }
}

TEST(SaveBudget, TheLastSaveBeginsTwiceItsTimeBeforeTheEnd) {
  SaveBudget budget;
  budget.set_end(1000, 0, 30);
  EXPECT_FALSE(budget.is_time(969, 0));
  EXPECT_TRUE(budget.is_time(970, 0));
  budget.measured(50);
  EXPECT_EQ(budget.lead(), 100);
  EXPECT_FALSE(budget.is_time(899, 0));
  EXPECT_TRUE(budget.is_time(899, 1)) << "the next chance to decide would be too late";
  EXPECT_TRUE(budget.is_time(900, 0));
}

TEST(SaveBudget, GoesByTheLongestOfTheLastThreeSaves) {
  SaveBudget budget;
  for (const double seconds : {9.0, 2.0, 3.0}) budget.measured(seconds);
  EXPECT_EQ(budget.expected(), 9);
  budget.measured(1);
  EXPECT_EQ(budget.expected(), 3) << "the slow one was too long ago";
}

TEST(SaveBudget, WithoutALeadAShortJobStillMakesProgress) {
  SaveBudget job;
  job.set_end(60, 0, std::nullopt);
  EXPECT_FALSE(job.is_time(56, 0)) << "a twentieth of a minute is left for the save";
  EXPECT_TRUE(job.is_time(57, 0));
  job.set_end(86400, 0, std::nullopt);
  EXPECT_EQ(job.lead(), 60);
}

TEST(SaveBudget, GoesByWhatIsAssumedUntilASaveIsMeasured) {
  SaveBudget budget;
  budget.set_end(3600, 0, std::nullopt);
  budget.assume(150, 200);
  EXPECT_FALSE(budget.is_time(3299, 0));
  EXPECT_TRUE(budget.is_time(3300, 0)) << "a twentieth, at most a minute, would be too late";
  EXPECT_TRUE(budget.whole_fits(3599)) << "nobody knows that it would not";
  budget.measured(40);
  EXPECT_EQ(budget.lead(), 80);
  SaveBudget brief;
  brief.set_end(600, 0, std::nullopt);
  brief.assume(500, 500);
  EXPECT_EQ(brief.lead(), 50) << "half of what is left is for the training";
  SaveBudget given;
  given.set_end(3600, 0, 5);
  given.assume(150, 200);
  EXPECT_EQ(given.lead(), 5);
}

TEST(SaveBudget, AWholeCheckpointThatCanNotBeReadyIsNotBegun) {
  SaveBudget budget;
  EXPECT_TRUE(budget.whole_fits(1e9)) << "nobody knows an end";
  budget.set_end(1000, 0, 0);
  budget.measured(80);
  EXPECT_TRUE(budget.whole_fits(900));
  EXPECT_FALSE(budget.whole_fits(901));
  budget.shorten(500);
  EXPECT_FALSE(budget.whole_fits(401));
  budget.shorten(2000);
  EXPECT_FALSE(budget.whole_fits(401)) << "a signal never gives time";
}

TEST(SaveBudget, SuggestsTheSignalThatLeavesTimeForTwoSaves) {
  SaveBudget budget;
  budget.measured(12.3);
  EXPECT_EQ(budget.signal_seconds(0.5), 30U);
  budget.measured(14.6);
  EXPECT_EQ(budget.signal_seconds(0.5), 40U);
}

TEST(SaveBudget, AnEndThatIsMovedCountsAtOnce) {
  SaveBudget budget;
  budget.set_end(60, 0, std::nullopt);
  EXPECT_TRUE(budget.is_time(58, 0));
  budget.move_end(600, 58);
  EXPECT_FALSE(budget.is_time(560, 0));
  EXPECT_TRUE(budget.is_time(580, 0)) << "a twentieth of what was left by then";
  budget.move_end(300, 100);
  EXPECT_TRUE(budget.is_time(280, 0)) << "it may come nearer, too";
  budget.move_end(std::nullopt, 100);
  EXPECT_FALSE(budget.is_time(1e9, 0));
  SaveBudget given;
  given.set_end(60, 0, 5);
  given.move_end(86400, 0);
  EXPECT_EQ(given.lead(), 5) << "the program's own lead stays";
}

TEST(BestValues, OfEqualValuesTheFirstOnesCount) {
  BestValues best(MetricOrder::max, 2);
  EXPECT_TRUE(best.improves(1));
  EXPECT_TRUE(best.improves(1)) << "there is room";
  EXPECT_FALSE(best.improves(1));
  BestValues worst(MetricOrder::min, 0);
  EXPECT_FALSE(worst.improves(1)) << "none is wanted";
}

TEST(BestValues, OnlyWhatIsAmongTheBestIsAnImprovement) {
  BestValues best(MetricOrder::min, 2);
  for (const auto& [value, improves] : std::vector<std::pair<double, bool>>{
           {5, true}, {7, true}, {7, false}, {8, false}, {6, true}, {7, false}, {1, true}}) {
    EXPECT_EQ(best.improves(value), improves) << value;
  }
  EXPECT_EQ(best.values(), (std::vector<double>{1, 5}));
  EXPECT_FALSE(best.improves(std::numeric_limits<double>::quiet_NaN()));
  BestValues most(MetricOrder::max, 1);
  EXPECT_TRUE(most.improves(-3));
  EXPECT_FALSE(most.improves(-4));
  EXPECT_TRUE(most.improves(2));
}

TEST(Slurm, TimesAreReadAsSqueueWritesThem) {
  const std::map<std::string, double> times{
      {"59", 59},     {"0:59", 59},          {"1:00:01\n", 3601}, {"2-03:04:05", 183845},
      {"10:00", 600}, {"1-00:00:00", 86400}, {"0:00", 0}};
  for (const auto& [text, seconds] : times) {
    EXPECT_EQ(parse_slurm_time(text), std::optional(seconds)) << text;
  }
  for (const char* text : {"", "UNLIMITED", "NOT_SET", "INVALID", "1:", "-1:00", "1-", "1-2:3",
                           "1:2:3:4", "nan", "1e3x"}) {
    EXPECT_FALSE(parse_slurm_time(text).has_value()) << text;
  }
}

SlurmAccess fake_slurm(std::map<std::string, std::string> environment,
                       std::optional<std::string> squeue) {
  SlurmAccess access;
  access.environment = [environment](const std::string& name) -> std::optional<std::string> {
    const auto found = environment.find(name);
    if (found == environment.end()) return std::nullopt;
    return found->second;
  };
  access.time_left = [squeue](const std::string&) { return squeue; };
  access.unix_time = [] { return 1000.0; };
  return access;
}

TEST(Slurm, TheEnvironmentIsAskedBeforeSqueue) {
  const auto env =
      ask_slurm(fake_slurm({{"SLURM_JOB_END_TIME", "1600"}, {"SLURM_JOB_ID", "7"}}, "1:00\n"));
  EXPECT_EQ(env.seconds_left, std::optional(600.0));
  EXPECT_EQ(ask_slurm(fake_slurm({{"SLURM_JOB_ID", "7"}}, "1:00\n")).seconds_left,
            std::optional(60.0));
  EXPECT_FALSE(ask_slurm(fake_slurm({}, "1:00")).seconds_left.has_value()) << "no job runs here";
}

TEST(Slurm, ATaskOfAnArrayIsAskedForByItsOwnNumber) {
  SlurmAccess access = fake_slurm(
      {{"SLURM_JOB_ID", "7"}, {"SLURM_ARRAY_JOB_ID", "7"}, {"SLURM_ARRAY_TASK_ID", "2"}}, {});
  access.time_left = [](const std::string& job) {
    return job == "7_2" ? "1:00\n" : "1:00\n2:00\n";  // 7 is also the whole array
  };
  EXPECT_EQ(ask_slurm(access).seconds_left, std::optional(60.0));
}

TEST(Slurm, AJobWhoseEndIsUnknownIsTold) {
  EXPECT_TRUE(ask_slurm(fake_slurm({}, std::nullopt)).warning.empty());
  EXPECT_TRUE(ask_slurm(fake_slurm({{"SLURM_JOB_ID", "7"}}, "UNLIMITED\n")).warning.empty());
  const auto silent = ask_slurm(fake_slurm({{"SLURM_JOB_ID", "7"}}, std::nullopt));
  EXPECT_NE(silent.warning.find("time_limit"), std::string::npos) << silent.warning;
  EXPECT_FALSE(silent.seconds_left.has_value());
}

TEST(Slurm, AJobPastItsLimitHasNoTimeLeft) {
  const auto late = ask_slurm(fake_slurm({{"SLURM_JOB_ID", "7"}}, "INVALID\n"));
  EXPECT_EQ(late.seconds_left, std::optional(0.0));
}

TEST(Slurm, SqueueAloneKnowsOfAChangedLimit) {
  const auto access = fake_slurm({{"SLURM_JOB_END_TIME", "1600"}, {"SLURM_JOB_ID", "7"}}, "9:00\n");
  EXPECT_EQ(ask_squeue(access).seconds_left, std::optional(540.0));
}

TEST(LimitWatch, AsksSoonerWhenTheEndIsNear) {
  using std::chrono::seconds;
  EXPECT_EQ(LimitWatch::usual_pace(86400), seconds(600));
  EXPECT_EQ(LimitWatch::usual_pace(200), seconds(100));
  EXPECT_EQ(LimitWatch::usual_pace(1), seconds(15));
  EXPECT_EQ(LimitWatch::usual_pace(std::nullopt), seconds(600));
}

TEST(LimitWatch, TellsWhatSlurmSaysByNow) {
  std::mutex mutex;
  std::optional<std::string> says = "NOT_SET";
  std::atomic<int> asked = 0;
  const auto make_access = [&](std::function<bool()>) {
    SlurmAccess access = fake_slurm({{"SLURM_JOB_ID", "7"}}, {});
    access.time_left = [&](const std::string&) {
      const std::lock_guard lock(mutex);
      ++asked;
      return says;
    };
    return access;
  };
  LimitWatch watch(60, make_access, [](auto) { return std::chrono::milliseconds(1); });
  const auto next_news = [&](std::optional<std::string> text) {
    {
      const std::lock_guard lock(mutex);
      says = std::move(text);
    }
    const int before = asked;
    while (asked < before + 2) std::this_thread::yield();  // the test's time limit ends it
    watch.news();                                          // may be of before
    for (;;) {
      if (const auto news = watch.news()) return *news;
    }
  };
  const int before = asked;
  while (asked < before + 2) std::this_thread::yield();
  EXPECT_FALSE(watch.news().has_value()) << "no answer is no news";
  const auto longer = next_news("1:00:00\n");
  ASSERT_TRUE(longer.end.has_value());
  EXPECT_GT(*longer.end - LimitWatch::Clock::now(), std::chrono::minutes(30));
  EXPECT_FALSE(next_news("UNLIMITED\n").end.has_value());
}

TEST(LimitWatch, EndsAtOnceThoughSlurmDoesNotAnswer) {
  std::atomic<bool> asks = false;
  std::optional<LimitWatch> watch;
  watch.emplace(
      60,
      [&](std::function<bool()> given_up) {
        SlurmAccess access = fake_slurm({{"SLURM_JOB_ID", "7"}}, {});
        access.time_left = [&asks, given_up](const std::string&) {
          asks = true;
          return output_of({"sleep", "1000"}, std::chrono::hours(1), given_up);
        };
        return access;
      },
      [](auto) { return std::chrono::milliseconds(1); });
  while (!asks) std::this_thread::yield();
  watch.reset();  // the test's time limit says whether it does
}

TEST(Child, ItsOutputIsReadAndItsFailureIsNothing) {
  using std::chrono::seconds;
  EXPECT_EQ(output_of({"printf", "a b\n"}, seconds(20)), "a b\n");
  EXPECT_FALSE(output_of({"false"}, seconds(20)).has_value());
  EXPECT_FALSE(output_of({"cairn-no-such-program"}, seconds(20)).has_value());
  EXPECT_FALSE(output_of({"sleep", "1000"}, std::chrono::milliseconds(20)).has_value());
}

TEST(SignalWatch, TellsHowLongAgoTheFirstSigtermCame) {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point then) {
    return std::chrono::duration<double>(Clock::now() - then).count();
  };
  const SignalWatch first;
  std::raise(SIGUSR1);
  EXPECT_EQ(first.term_age_s(), 0);
  const auto before = Clock::now();
  std::raise(SIGTERM);
  const auto between = Clock::now();
  std::raise(SIGTERM);
  const double at_least = seconds_since(between);  // looked at in this order
  const double age = first.term_age_s();
  EXPECT_GE(age, at_least);
  EXPECT_LE(age, seconds_since(before));
  const SignalWatch second;
  EXPECT_EQ(second.term_age_s(), 0) << "they came before";
  const auto again = Clock::now();
  std::raise(SIGTERM);
  const double youngest = second.term_age_s();
  EXPECT_LE(youngest, seconds_since(again));
  EXPECT_GT(first.term_age_s(), youngest) << "the first of each counts";
}

volatile std::sig_atomic_t chained = 0;

TEST(SignalWatch, NotesSignalsAndPutsBackWhatWasThere) {
  struct sigaction before {};
  before.sa_handler = [](int) { chained = chained + 1; };
  sigemptyset(&before.sa_mask);
  struct sigaction original {};
  sigaction(SIGUSR1, &before, &original);
  {
    const SignalWatch first;
    EXPECT_EQ(first.seen(), 0);
    std::raise(SIGUSR1);
    EXPECT_EQ(first.seen(), SIGUSR1);
    const SignalWatch second;
    EXPECT_EQ(second.seen(), 0) << "it came before";
    std::raise(SIGTERM);
    EXPECT_EQ(second.seen(), SIGTERM);
    EXPECT_EQ(first.seen(), SIGTERM);
  }
  EXPECT_EQ(chained, 1) << "the handler of before was called, too";
  struct sigaction now {};
  sigaction(SIGUSR1, &original, &now);
  EXPECT_EQ(now.sa_handler, before.sa_handler);
  sigaction(SIGTERM, nullptr, &now);
  EXPECT_EQ(now.sa_handler, SIG_DFL);
}

TEST(LossScaler, FallsWithOverflowsAndGrowsWithGoodSteps) {
  LossScaler scaler(8, 2, 0.5, 3);
  scaler.update(true);
  EXPECT_EQ(scaler.scale(), 4);
  for (int i = 0; i < 2; ++i) scaler.update(false);
  LossScaler resumed(8, 2, 0.5, 3);
  resumed.load(scaler.state());
  EXPECT_EQ(resumed.scale(), 4);
  resumed.update(false);
  EXPECT_EQ(resumed.scale(), 8) << "the good steps of before count";
  EXPECT_THROW(resumed.load("{}"), Error);
  EXPECT_EQ(resumed.scale(), 8);
}

}  // namespace
}  // namespace cairn
