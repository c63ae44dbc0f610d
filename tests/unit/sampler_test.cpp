// A data set that counts how often each of its samples is seen, on changing numbers of ranks.
#include "cairn/sampler.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cairn/error.hpp"
#include "trainer/shuffle.hpp"
#include "trainer/states.hpp"

namespace cairn {
namespace {

/// All ranks of a job, one after the other.
class Job {
 public:
  Job(const SamplerOptions& options, int ranks) {
    for (int rank = 0; rank < ranks; ++rank) samplers_.emplace_back(options, rank, ranks);
  }

  /// A step on all ranks; counts what is seen. Whether the epoch ended.
  bool step(std::vector<int>& seen) {
    bool last = false;
    for (Sampler& sampler : samplers_) {
      const Sampler::Batch batch = sampler.next();
      for (const std::uint64_t sample : batch.samples) ++seen.at(sample);
      sampler.done(batch);
      last = batch.last;
    }
    return last;
  }

  std::string state() const { return samplers_.front().state(); }
  void load(const std::string& state) {
    for (Sampler& sampler : samplers_) sampler.load(state);
  }
  Sampler& rank(std::size_t rank) { return samplers_.at(rank); }

 private:
  std::vector<Sampler> samplers_;
};

std::vector<int> all(std::uint64_t size, int times) { return std::vector<int>(size, times); }

TEST(Sampler, AResumeInMidEpochRepeatsNoSampleAndSkipsNone) {
  struct Case {
    int before;
    int after;
  };
  for (const auto& [before, after] : {Case{4, 4}, Case{4, 2}, Case{2, 4}, Case{3, 5}, Case{1, 8}}) {
    for (const bool shuffle : {true, false}) {
      for (const int steps : {0, 1, 5, 14}) {
        SCOPED_TRACE(testing::Message() << before << " to " << after << " ranks after " << steps
                                        << " steps, shuffle " << shuffle);
        const SamplerOptions options{.size = 103, .batch = 7, .seed = 5, .shuffle = shuffle};
        std::vector<int> seen(103);
        Job first(options, before);
        for (int i = 0; i < steps; ++i) EXPECT_FALSE(first.step(seen));
        Job second({.size = 103, .batch = 9, .seed = 5, .shuffle = shuffle}, after);
        second.load(first.state());
        while (!second.step(seen)) {
        }
        EXPECT_EQ(seen, all(103, 1));
        while (!second.step(seen)) {  // and the next epoch is whole, too
        }
        EXPECT_EQ(seen, all(103, 2));
        EXPECT_EQ(second.rank(0).epoch(), 2U);
      }
    }
  }
}

TEST(Sampler, TheOrderDoesNotDependOnTheRanksButOnSeedAndEpoch) {
  const auto order = [](int ranks, std::uint64_t seed, int epoch) {
    std::vector<Sampler> job;
    for (int rank = 0; rank < ranks; ++rank) {
      job.emplace_back(SamplerOptions{.size = 50, .batch = 6, .seed = seed}, rank, ranks);
    }
    std::vector<std::uint64_t> samples;
    while (job.front().epoch() == static_cast<std::uint64_t>(epoch)) {
      for (Sampler& sampler : job) {
        const auto batch = sampler.next();
        samples.insert(samples.end(), batch.samples.begin(), batch.samples.end());
      }
    }
    return samples;
  };
  EXPECT_EQ(order(1, 1, 0), order(4, 1, 0));
  EXPECT_NE(order(1, 1, 0), order(1, 2, 0));
  EXPECT_FALSE(std::ranges::is_sorted(order(1, 1, 0)));
  Sampler sampler({.size = 50, .batch = 50, .seed = 1}, 0, 1);
  EXPECT_NE(sampler.next().samples, sampler.next().samples) << "another order in each epoch";
}

TEST(Sampler, WhatWasReadAheadAndNotUsedIsDrawnAgain) {
  const SamplerOptions options{.size = 20, .batch = 4, .read_ahead = true};
  Sampler sampler(options, 0, 1);
  const auto first = sampler.next();
  const auto second = sampler.next();
  sampler.next();
  sampler.done(first);
  Sampler resumed(options, 0, 1);
  resumed.load(sampler.state());
  EXPECT_EQ(resumed.next().samples, second.samples);
}

/// A state that a load can't give anything.
class Refusing : public Stateful {
 public:
  std::string state() const override { return "0"; }
  void load(const std::string&) override { throw Error(Errc::mismatch, "refused", 0); }
};

/// A checkpoint that holds the sampler's state `state`, and one for the state that refuses.
Manifest checkpoint_with(const std::string& state) {
  Manifest manifest;
  manifest.format = "cairn";
  manifest.files.resize(1);
  const nlohmann::json shared{{"scope", "shared"}, {"state", state}};
  const nlohmann::json refusing{{"scope", "shared"}, {"state", "0"}};
  manifest.documents["state"] = nlohmann::json{{"sampler", shared}, {"the_last", refusing}}.dump();
  return manifest;
}

TEST(Sampler, AFailedLoadNeitherRepeatsNorSkipsWhatWasReadAhead) {
  const SamplerOptions options{.size = 30, .batch = 4, .read_ahead = true};
  std::vector<int> seen(30);
  Sampler sampler(options, 0, 1);
  std::deque<Sampler::Batch> loader;
  const auto use_one = [&] {
    for (const std::uint64_t sample : loader.front().samples) ++seen.at(sample);
    sampler.done(loader.front());
    loader.pop_front();
  };
  for (int ahead = 0; ahead < 3; ++ahead) loader.push_back(sampler.next());
  use_one();
  const std::string before = sampler.state();

  Sampler elsewhere(options, 0, 1);
  for (int i = 0; i < 6; ++i) elsewhere.done(elsewhere.next());
  const Manifest manifest = checkpoint_with(elsewhere.state());
  Refusing refusing;
  const detail::CheckpointNames names(manifest, {});
  // Refused by another state, or by something that comes later.
  for (const bool refuses : {true, false}) {
    detail::States states{{"sampler", &sampler}};
    if (refuses) states["the_last"] = &refusing;
    detail::StatesLoad load(manifest, names, states);
    if (refuses) {
      EXPECT_THROW(load.apply(), Error);
    } else {
      load.apply();
    }
    EXPECT_EQ(sampler.state(), elsewhere.state());
    load.roll_back();
    EXPECT_EQ(sampler.state(), before);
  }
  while (sampler.epoch() == 0) {
    loader.push_back(sampler.next());
    use_one();
  }
  while (!loader.empty()) use_one();
  EXPECT_EQ(seen, all(30, 1));
}

TEST(Sampler, BatchesAreToldOnceAndInTheirOrder) {
  Sampler sampler({.size = 30, .batch = 4, .read_ahead = true}, 0, 1);
  const auto first = sampler.next();
  const auto second = sampler.next();
  EXPECT_THROW(sampler.done(second), Error);
  sampler.done(first);
  EXPECT_THROW(sampler.done(first), Error);
  const std::string state = sampler.state();
  sampler.done(second);
  sampler.load(state);
  EXPECT_EQ(sampler.next().samples, second.samples);
  sampler.load(Sampler({.size = 30, .batch = 4}, 0, 1).state());
  EXPECT_THROW(sampler.done(second), Error) << "of before the load";
}

TEST(Sampler, DropLastLeavesOutWhatIsNoWholeBatch) {
  Sampler sampler({.size = 10, .batch = 4, .shuffle = false, .drop_last = true}, 0, 1);
  EXPECT_FALSE(sampler.next().last);
  EXPECT_TRUE(sampler.next().last);
  EXPECT_EQ(sampler.next().samples, (std::vector<std::uint64_t>{0, 1, 2, 3}));
}

TEST(Sampler, RanksWithoutASampleStillStep) {
  Job job({.size = 5, .batch = 2, .shuffle = false}, 4);
  EXPECT_TRUE(job.rank(3).next().samples.empty());
}

TEST(Sampler, APositionInOtherDataIsRefused) {
  Sampler sampler({.size = 10, .batch = 2}, 0, 1);
  sampler.next();
  Sampler other({.size = 11, .batch = 2}, 0, 1);
  try {
    other.load(sampler.state());
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Errc::mismatch);
  }
  EXPECT_EQ(other.position(), 0U);
  EXPECT_THROW(other.load("[]"), Error);
  EXPECT_THROW(Sampler({.size = 0}, 0, 1), Error);
  EXPECT_THROW(Sampler({.size = 3, .batch = 4, .drop_last = true}, 0, 1), Error);
}

TEST(Shuffle, IsAPermutationOfAnySize) {
  for (const std::uint64_t size : {1U, 2U, 3U, 4U, 5U, 16U, 17U, 64U, 1000U}) {
    const detail::Shuffle shuffle(size, 3, 1);
    std::vector<int> seen(size);
    for (std::uint64_t i = 0; i < size; ++i) ++seen.at(shuffle(i));
    EXPECT_EQ(seen, all(size, 1)) << size;
  }
}

}  // namespace
}  // namespace cairn
