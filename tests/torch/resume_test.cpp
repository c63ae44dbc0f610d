#include <torch/optim/sgd.h>

#include <algorithm>
#include <csignal>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "cairn/average.hpp"
#include "cairn/callback.hpp"
#include "cairn/sampler.hpp"
#include "torch/part.hpp"
#include "torch/toy.hpp"

// A run that is stopped in the middle of an epoch and goes on, on as many ranks or on others.
namespace cairn::test {
namespace {

namespace optim = torch::optim;

constexpr std::uint64_t kSamples = 53;  // which nothing divides
constexpr std::uint64_t kBatch = 7;

using Counts = std::vector<std::uint64_t>;

/// A trainer with everything that a checkpoint holds of one, on the ranks of `comm`, for one epoch.
class Trainer {
 public:
  Trainer(MPI_Comm comm, const std::filesystem::path& dir, bool reads_ahead)
      : manager_(comm, config_for(dir)),
        sampler_({.size = kSamples, .batch = kBatch, .seed = 3, .read_ahead = reads_ahead},
                 manager_.comm().rank(), manager_.comm().size()),
        reads_ahead_(reads_ahead),
        callback_(manager_, model_, optimizer_) {
    manager_.add_state("sampler", sampler_);
    manager_.add_state("scaler", scaler_);
    manager_.add_state("ema", average_);
  }

  CheckpointContext start() { return callback_.on_train_start(); }

  /// Steps until the epoch is over or a signal stops it, and counts the samples that it took. The
  /// last step.
  std::uint64_t run(std::uint64_t step, Counts& counts) {
    for (bool over = false; !over && !callback_.should_stop();) {
      while (read_.size() < (reads_ahead_ ? 3U : 1U)) read_.push_back(sampler_.next());
      const Sampler::Batch batch = read_.front();
      read_.pop_front();
      for (const std::uint64_t sample : batch.samples) ++counts.at(sample);
      over = batch.last;
      train(model_, optimizer_, 1);
      average_.update();
      scaler_.update(step % 3 == 0);
      if (reads_ahead_) sampler_.done(batch);
      callback_.on_step_end(++step);
    }
    callback_.on_train_end();
    return step;
  }

  /// What does not depend on who computes it.
  std::vector<std::string> values() const {
    std::vector<std::string> all = bytes_of(model_);
    for (const auto& average : average_.averages()) all.push_back(bytes_of(average.tensor));
    all.push_back(scaler_.state());
    return all;
  }

  int last_rank() const { return manager_.comm().size() - 1; }
  int rank() const { return manager_.comm().rank(); }
  void close() { manager_.close(); }

 private:
  CheckpointManager manager_;
  Model model_{1};
  optim::SGD optimizer_{one_group(model_), optim::SGDOptions(1e-2).momentum(0.9)};
  Sampler sampler_;
  LossScaler scaler_{64, 2, 0.5, 2};
  WeightAverage average_{model_, 0.75};
  bool reads_ahead_;
  std::deque<Sampler::Batch> read_;
  CheckpointCallback callback_;
};

std::string became(const CheckpointContext& context, const std::string& state) {
  for (const StateReport& report : context.report.states) {
    if (report.name == state) return report.text;
  }
  return "nothing";
}

/// On the first `from` ranks until a signal stops it after a step or two, and on the first `to`
/// ranks until the epoch is over.
void stop_and_go_on(int from, int to, bool reads_ahead) {
  SCOPED_TRACE("from " + std::to_string(from) + " ranks to " + std::to_string(to) +
               (reads_ahead ? ", reading ahead" : ""));
  const auto dir = scratch();
  const auto dir_of_undisturbed = scratch();
  Counts counts(kSamples);
  std::uint64_t stopped = 0;
  if (const auto part = first_ranks(from)) {
    Trainer trainer(*part, dir, reads_ahead);
    trainer.start();
    if (trainer.rank() == trainer.last_rank()) std::raise(SIGTERM);
    stopped = trainer.run(0, counts);
    trainer.close();
  }
  std::uint64_t agreed[1] = {stopped};
  world().all_reduce_max(std::span<std::uint64_t>(agreed));
  stopped = agreed[0];
  ASSERT_GT(stopped, 0U);
  ASSERT_LT(stopped * kBatch, kSamples) << "it was to stop in the middle of the epoch";

  if (const auto part = first_ranks(to)) {
    Trainer trainer(*part, dir, reads_ahead);
    const CheckpointContext context = trainer.start();
    EXPECT_EQ(context.global_step, stopped);
    const bool resized = from != to;
    const std::string same_on_all = "taken as it was: it is the same on every rank";
    EXPECT_EQ(became(context, "sampler"),
              resized ? "goes on at sample " + std::to_string(stopped * kBatch) + " of 53 in epoch " +
                            "0, divided over " + std::to_string(to) + " ranks instead of " +
                            std::to_string(from)
                      : "restored");
    EXPECT_EQ(became(context, "scaler"), resized ? same_on_all : "restored");
    EXPECT_EQ(became(context, "ema"), resized ? same_on_all : "restored");
    trainer.run(context.global_step, counts);

    Trainer undisturbed(*part, dir_of_undisturbed, reads_ahead);
    Counts own(kSamples);
    undisturbed.start();
    undisturbed.run(0, own);
    EXPECT_EQ(trainer.values(), undisturbed.values());
    trainer.close();
    undisturbed.close();
  }
  world().all_reduce_sum(std::span<std::uint64_t>(counts));
  EXPECT_EQ(counts, Counts(kSamples, 1)) << "each sample once";
}

TEST(Resume, InTheMiddleOfAnEpochRepeatsNoSampleAndSkipsNoneOnAnyNumberOfRanks) {
  const int all = world().size();
  std::vector<std::pair<int, int>> jobs{{all, all}};  // on four ranks: 4 to 4, 4 to 2, 2 to 4
  if (all > 1) {
    jobs.emplace_back(all, all / 2);
    jobs.emplace_back(all / 2, all);
  }
  for (const auto& [from, to] : jobs) {
    for (const bool reads_ahead : {false, true}) stop_and_go_on(from, to, reads_ahead);
  }
}

}  // namespace
}  // namespace cairn::test
