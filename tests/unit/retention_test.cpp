// Which checkpoints stay: the policy as a table, and the order of removal.
#include "plan/retention.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <set>

namespace cairn::detail {
namespace {

/// A checkpoint of `step`, committed at minute `minute`.
CheckpointFacts fact(std::uint64_t step, int minute) {
  CheckpointFacts facts;
  facts.name = std::to_string(step);
  facts.step = step;
  facts.committed_at =
      "2026-01-01T00:" + std::string(minute < 10 ? "0" : "") + std::to_string(minute) + ":00Z";
  return facts;
}

/// Steps 10, 20, ..., committed in that order.
std::vector<CheckpointFacts> run_of(std::size_t count) {
  std::vector<CheckpointFacts> run;
  for (std::size_t i = 1; i <= count; ++i) run.push_back(fact(10 * i, static_cast<int>(i)));
  return run;
}

using Steps = std::set<std::uint64_t>;

Steps kept(const RetentionRequest& request, const std::vector<CheckpointFacts>& run) {
  const auto verdicts = judge_retention(request, run);
  Steps steps;
  for (std::size_t i = 0; i < run.size(); ++i) {
    if (verdicts[i].keep()) steps.insert(run[i].step);
  }
  return steps;
}

RetentionPolicy last(std::uint64_t n) { return {.keep_last = n}; }

TEST(Retention, RulesAddUp) {
  std::vector<CheckpointFacts> run = run_of(6);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> loss{0.5, 0.1, nan, 0.3, 0.1, 0.9};
  for (std::size_t i = 0; i < run.size(); ++i) run[i].metrics["loss"] = loss[i];
  struct Case {
    RetentionPolicy policy;
    Steps stay;
  };
  const Case cases[] = {
      {{}, {10, 20, 30, 40, 50, 60}},
      {{.keep_last = 1}, {60}},
      {{.keep_last = 2}, {50, 60}},
      {{.keep_last = 9}, {10, 20, 30, 40, 50, 60}},
      {{.keep_last = 1, .keep_every_n_steps = 30}, {30, 60}},
      {{.keep_last = 1, .keep_every_n_steps = 20}, {20, 40, 60}},
      {{.keep_last = 1, .keep_best = {1, "loss", MetricOrder::min}}, {20, 60}},  // of equal ones
      {{.keep_last = 1, .keep_best = {2, "loss", MetricOrder::min}}, {20, 50, 60}},
      {{.keep_last = 1, .keep_best = {2, "loss", MetricOrder::max}}, {10, 60}},
      {{.keep_last = 1, .keep_best = {6, "loss", MetricOrder::max}}, {10, 20, 40, 50, 60}},
      // Misspelt, perhaps: nothing goes that may be the best.
      {{.keep_last = 1, .keep_best = {2, "score", MetricOrder::max}}, {10, 20, 30, 40, 50, 60}},
  };
  for (const Case& each : cases) {
    EXPECT_EQ(kept({each.policy, {}}, run), each.stay)
        << each.policy.keep_last << " " << each.policy.keep_every_n_steps << " "
        << each.policy.keep_best.k;
  }
}

TEST(Retention, TheMostRecentlyCommittedAreTheLastOnesAndTheHighestStepStays) {
  // The run went back to 100 and saved 110 and 120.
  const std::vector<CheckpointFacts> run{fact(100, 1), fact(110, 4), fact(120, 5), fact(200, 2),
                                         fact(300, 3)};
  EXPECT_EQ(kept({last(2), {}}, run), (Steps{110, 120, 300}));
  // What was just saved is the most recent one, even by a clock that went back.
  EXPECT_EQ(kept({last(1), "100"}, run), (Steps{100, 300}));
}

TEST(Retention, PinnedLinkedAndTheLastVerifiedStay) {
  std::vector<CheckpointFacts> run = run_of(6);
  run[0].verified = true;
  run[1].verified = true;
  run[2].pinned = true;
  run[3].linked = true;
  EXPECT_EQ(kept({last(1), {}}, run), (Steps{20, 30, 40, 60}));
}

TEST(Retention, BadOnesCountForNothingAndStayUntilTheyAreToGo) {
  std::vector<CheckpointFacts> run = run_of(6);
  run[4].bad = run[5].bad = true;
  run[5].verified = true;  // a contradiction: the bad news counts
  run[0].verified = true;
  for (CheckpointFacts& one : run) one.metrics["loss"] = -static_cast<double>(one.step);
  const RetentionPolicy policy{.keep_last = 2, .keep_best = {1, "loss", MetricOrder::min}};
  EXPECT_EQ(kept({policy, {}}, run), (Steps{10, 30, 40, 50, 60}));
  EXPECT_EQ(kept({policy, {}, true}, run), (Steps{10, 30, 40}));
  run[4].pinned = true;
  EXPECT_EQ(kept({policy, {}, true}, run), (Steps{10, 30, 40, 50}));
}

TEST(Retention, WhatOneThatStaysNeedsStays) {
  std::vector<CheckpointFacts> run = run_of(6);
  run[5].needs = {"40"};
  run[3].needs = {"20", "10"};
  run[4].needs = {"30"};
  EXPECT_EQ(kept({last(1), {}}, run), (Steps{10, 20, 40, 60}));
  run[0].bad = true;
  EXPECT_EQ(kept({last(1), {}, true}, run), (Steps{10, 20, 40, 60}));
}

TEST(Retention, NothingGoesBeforeWhatNeedsIt) {
  std::vector<CheckpointFacts> run = run_of(7);
  run[4].needs = {"10", "20"};
  run[2].needs = {"20"};
  const auto order = removal_order(run, judge_retention({last(1), {}}, run));
  EXPECT_EQ(order, (std::vector<std::size_t>{2, 3, 4, 0, 1, 5}));
}

// Whatever the policy and the run, a removal that is cut short at any place leaves a newest
// checkpoint, and nothing that needs what is gone.
TEST(Retention, EveryPrefixOfARemovalLeavesAReadableRun) {
  std::mt19937 random(7);
  const auto chance = [&](unsigned one_in) { return random() % one_in == 0; };
  for (int round = 0; round < 500; ++round) {
    std::vector<CheckpointFacts> run = run_of(1 + random() % 12);
    for (std::size_t i = 0; i < run.size(); ++i) {
      run[i].pinned = chance(6);
      run[i].verified = chance(4);
      run[i].bad = chance(5);
      for (std::size_t base = 0; base < i; ++base) {
        if (chance(4)) run[i].needs.push_back(run[base].name);
      }
    }
    const auto verdicts = judge_retention(
        {{.keep_last = 1 + random() % 3, .keep_every_n_steps = random() % 50}, {}, chance(2)}, run);
    std::set<std::string> there;
    for (const CheckpointFacts& one : run) there.insert(one.name);
    for (const std::size_t gone : removal_order(run, verdicts)) {
      there.erase(run[gone].name);
      EXPECT_FALSE(run[gone].pinned);
      for (const CheckpointFacts& one : run) {
        if (!there.contains(one.name)) continue;
        for (const std::string& needed : one.needs) EXPECT_TRUE(there.contains(needed));
      }
    }
    for (std::size_t i = run.size(); i-- > 0;) {
      if (run[i].bad) continue;
      EXPECT_TRUE(there.contains(run[i].name)) << "the newest good one";
      break;
    }
    for (std::size_t i = run.size(); i-- > 0;) {
      if (run[i].bad || !run[i].verified) continue;
      EXPECT_TRUE(there.contains(run[i].name)) << "the last verified one";
      break;
    }
  }
}

}  // namespace
}  // namespace cairn::detail
