#include "cairn/callback.hpp"

#include <torch/optim/adam.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <optional>
#include <stdexcept>

#include "cairn/average.hpp"
#include "torch/toy.hpp"

// The callback in a loop, and what of a trainer's state is no tensor of the model or optimizer.
namespace cairn::test {
namespace {

namespace optim = torch::optim;
namespace fs = std::filesystem;

Config config_for(const fs::path& dir) {
  Config config;
  config.save.dir = dir;
  return config;
}

std::vector<std::string> files_of(const fs::path& dir) {
  world().all_equal(0);  // everybody has done what it does
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (entry.path().extension() == ".h5") names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  world().all_equal(0);  // nobody removes what another still lists
  return names;
}

using Files = std::vector<std::string>;

/// A text of the user's own; each rank has another one where it is per rank.
class Note : public Stateful {
 public:
  explicit Note(std::string first, StateScope scope = StateScope::shared)
      : text(std::move(first)), scope_(scope) {}
  std::string state() const override { return '"' + text + '"'; }
  void load(const std::string& state) override {
    if (refuses) throw std::runtime_error("the note is full");
    text = state.substr(1, state.size() - 2);
  }
  StateScope scope() const override { return scope_; }

  std::string text;
  bool refuses = false;

 private:
  StateScope scope_;
};

/// The first `count` ranks; nothing on the others. Freed with the job.
std::optional<MPI_Comm> first_ranks(int count) {
  MPI_Comm part = MPI_COMM_NULL;
  MPI_Comm_split(world().raw(), world().rank() < count ? 0 : MPI_UNDEFINED, 0, &part);
  if (part == MPI_COMM_NULL) return std::nullopt;
  return part;
}

const StateReport* report_of(const CheckpointContext& context, const std::string& name) {
  for (const StateReport& report : context.report.states) {
    if (report.name == name) return &report;
  }
  return nullptr;
}

TEST(Callback, ALoopSavesResumesAndEnds) {
  const auto dir = scratch();
  Config config = config_for(dir);
  config.save.every_n_steps = 4;
  config.save.every_n_epochs = 2;
  config.save.monitor = "val";
  const auto run = [&](std::uint64_t last) {
    CheckpointManager manager(world().raw(), config);
    Model model(1);
    optim::Adam optimizer(one_group(model), optim::AdamOptions(1e-2));
    CheckpointCallback callback(manager, model, optimizer);
    callback.on_save_checkpoint(
        [](CheckpointInfo& info) { info.metadata["note"] = R"({"by": "test"})"; });
    std::uint64_t step = callback.on_train_start().global_step;
    while (step < last && !callback.should_stop()) {
      train(model, optimizer, 1);
      callback.on_step_end(++step);
      if (step == 5) callback.on_validation_end({{"val", 0.5}});
      if (step % 3 == 0) callback.on_epoch_end(step / 3 - 1);
    }
    callback.on_train_end();
    EXPECT_EQ(callback.exit_code(), 0);
    manager.close();
    return bytes_of(model);
  };
  run(7);
  EXPECT_EQ(files_of(dir), (Files{"step-00000004.h5", "step-00000005.h5", "step-00000006.h5",
                                  "step-00000007.h5"}));
  const auto resumed = run(9);
  EXPECT_EQ(files_of(dir).back(), "step-00000009.h5");
  if (world().is_root()) {
    for (const auto& entry : fs::directory_iterator(dir)) fs::remove(entry);
  }
  world().all_equal(0);
  EXPECT_EQ(run(9), resumed) << "the same as without a break";

  CheckpointManager manager(world().raw(), config);
  Model model(1);
  manager.set_source(LocalSource{dir / "step-00000005.h5"});
  const auto context = manager.load_checkpoint(model);
  EXPECT_EQ(context.metrics.at("val"), 0.5);
  EXPECT_EQ(context.documents.at("user"), R"({"note":{"by":"test"}})");
  manager.set_source(LocalSource{dir / "step-00000006.h5"});
  EXPECT_EQ(manager.load_checkpoint(model).epoch, 2U) << "the epoch in which a resume goes on";
  EXPECT_TRUE(context.metrics.contains("val"));
  manager.close();
}

TEST(Callback, ASignalOnOneRankSavesAndAsksForARequeue) {
  const auto dir = scratch();
  CheckpointManager manager(world().raw(), config_for(dir));
  Model model(1);
  CheckpointCallback callback(manager, model);
  std::uint64_t step = callback.on_train_start().global_step;
  if (world().rank() == world().size() - 1) std::raise(SIGTERM);
  while (step < 100'000 && !callback.should_stop()) callback.on_step_end(++step);
  callback.on_train_end();
  EXPECT_EQ(callback.stop_cause(), SaveCause::signal);
  EXPECT_EQ(callback.exit_code(), kExitRequeue);
  EXPECT_EQ(files_of(dir), Files{checkpoint_path("", step).string()});
  manager.close();
}

TEST(Callback, WithoutTimeForAWholeCheckpointTheModelIsSavedBesideTheRun) {
  const auto dir = scratch();
  Config config = config_for(dir);
  config.save.every_n_steps = 3;
  Model model(1);
  optim::SGD optimizer(one_group(model), optim::SGDOptions(1e-2).momentum(0.9));
  {
    CheckpointManager manager(world().raw(), config);
    CheckpointCallback callback(manager, model, optimizer);
    callback.on_train_start();
    for (std::uint64_t step = 1; step <= 3; ++step) {
      train(model, optimizer, 1);
      callback.on_step_end(step);
    }
    callback.on_train_end();
    manager.close();
  }
  config.save.preemption.time_limit_s = 0.001;
  CheckpointManager manager(world().raw(), config);
  CheckpointCallback callback(manager, model, optimizer);
  std::uint64_t step = callback.on_train_start().global_step;
  while (!callback.should_stop()) callback.on_step_end(++step);
  callback.on_train_end();
  EXPECT_EQ(callback.stop_cause(), SaveCause::time_limit);
  EXPECT_EQ(callback.exit_code(), kExitRequeue);
  const auto names = files_of(dir);
  ASSERT_EQ(names.size(), 2U);
  EXPECT_EQ(names.front(), "step-00000003.h5");
  EXPECT_TRUE(names.back().starts_with("weights-")) << names.back();
  EXPECT_EQ(manager.newest_checkpoint()->filename(), "step-00000003.h5");
  const Manifest weights = open_checkpoint(world(), dir / names.back());
  EXPECT_NE(weights.find("model/bias"), nullptr);
  EXPECT_EQ(weights.find("optimizer/bias/momentum_buffer"), nullptr);
  manager.close();
}

TEST(Callback, TheLastStepIsSavedThoughTheBackgroundWasBusy) {
  const auto dir = scratch();
  Config config = config_for(dir);
  config.save.every_n_steps = 1;
  config.save.async = AsyncOptions{.when_busy = WhenBusy::skip};
  CheckpointManager manager(world().raw(), config);
  Model model(1);
  CheckpointCallback callback(manager, model);
  callback.on_train_start();
  for (std::uint64_t step = 1; step <= 6; ++step) callback.on_step_end(step);
  callback.on_train_end();
  EXPECT_EQ(files_of(dir).back(), "step-00000006.h5");
  EXPECT_EQ(manager.newest_checkpoint()->filename(), "step-00000006.h5");
  manager.close();
}

TEST(Callback, AnExceptionSavesNothingAndTellsWhereANewStartBegins) {
  const auto dir = scratch();
  Config config = config_for(dir);
  config.save.every_n_steps = 2;
  CheckpointManager manager(world().raw(), config);
  Model model(1);
  CheckpointCallback callback(manager, model);
  callback.on_train_start();
  for (std::uint64_t step = 1; step <= 3; ++step) callback.on_step_end(step);
  testing::internal::CaptureStderr();
  callback.on_exception(Error(Errc::io, "the data is gone", 0));
  callback.on_exception(std::runtime_error("on this rank alone"));
  const std::string told = testing::internal::GetCapturedStderr();
  EXPECT_EQ(files_of(dir), Files{"step-00000002.h5"});
  if (world().is_root()) {
    EXPECT_NE(told.find("step 3 (the data is gone)"), std::string::npos) << told;
    EXPECT_NE(told.find("step-00000002.h5"), std::string::npos) << told;
  } else {
    EXPECT_EQ(told, "");
  }
  manager.close();
}

TEST(Callback, ASecondJobInTheDirectoryIsRefused) {
  const auto dir = scratch();
  Model model(1);
  CheckpointManager first(world().raw(), config_for(dir));
  CheckpointManager second(world().raw(), config_for(dir));
  CheckpointCallback other(second, model);
  {
    CheckpointCallback callback(first, model);
    callback.on_train_start();
    try {
      other.on_train_start();
      ADD_FAILURE() << "two jobs use the directory";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::refused);
      EXPECT_NE(std::string(error.what()).find(dir.string()), std::string::npos) << error.what();
    }
  }
  world().all_equal(0);
  EXPECT_EQ(other.on_train_start().global_step, 0U) << "the first job has ended";
  first.close();
  second.close();
}

TEST(Callback, WhatAResumeCouldNotRepeatIsRefused) {
  Config config = config_for(scratch());
  config.source = LocalSource{"pretrained.h5"};
  config.loading = LoadingConfig{.type = LoadingType::transfer_learning, .freeze_loaded = true};
  CheckpointManager manager(world().raw(), config);
  Model model(1);
  CheckpointCallback callback(manager, model);
  try {
    callback.on_train_start();
    ADD_FAILURE() << "a resume would train what was frozen";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Errc::usage);
    EXPECT_NE(std::string(error.what()).find("freeze_loaded"), std::string::npos) << error.what();
  }
  manager.close();
}

TEST(Callback, ARunThatNeverGetsFurtherIsStopped) {
  const auto dir = scratch();
  Config config = config_for(dir);
  config.save.max_restarts = 2;
  config.save.every_n_steps = 2;
  Model model(1);
  const auto start = [&](std::uint64_t steps, bool ends) {
    CheckpointManager manager(world().raw(), config);
    CheckpointCallback callback(manager, model);
    std::uint64_t step = callback.on_train_start().global_step;
    for (std::uint64_t done = 0; done < steps; ++done) callback.on_step_end(++step);
    if (ends) callback.on_train_end();
    manager.close();
    world().all_equal(0);  // the lease is rank 0's to give back
  };
  for (int crashes = 0; crashes < 3; ++crashes) start(1, false);
  EXPECT_THROW(start(1, false), Error);
  if (world().is_root()) fs::remove(dir / ".restarts");
  world().all_equal(0);
  start(3, false);
  for (int crashes = 0; crashes < 3; ++crashes) start(0, false);  // at step 2, which is further
  EXPECT_THROW(start(0, false), Error);
  if (world().is_root()) fs::remove(dir / ".restarts");
  world().all_equal(0);
  for (int good = 0; good < 5; ++good) start(0, true);
}

TEST(Callback, ARunOfItsOwnGoesOnWhateverItsBeginningWas) {
  const auto pretrained = scratch();
  const auto dir = scratch();
  Model model(5);
  {
    auto manager = manager_in(pretrained);
    manager.save_checkpoint(model, {.global_step = 70});
    manager.close();
  }
  Config config = config_for(dir);
  config.source = LocalSource{pretrained};
  config.loading = LoadingConfig{.type = LoadingType::cold_start};
  config.modifiers = {CustomModifier{"of_the_beginning", {}}, FreezeModifier{{"bias"}}};
  register_modifier_type("of_the_beginning", [](const CustomModifier&, torch::nn::Module&) {
    return [] { return ModifierReport{"of_the_beginning", {}, "done"}; };
  });
  const auto run = [&](std::uint64_t first) {
    CheckpointManager manager(world().raw(), config);
    CheckpointCallback callback(manager, model);
    const auto context = callback.on_train_start();
    EXPECT_EQ(context.global_step, first);
    callback.on_step_end(first + 1);
    callback.on_train_end();
    EXPECT_FALSE(model.bias.requires_grad());
    manager.close();
    return context;
  };
  EXPECT_EQ(run(0).modifiers.size(), 2U);
  const auto context = run(1);
  EXPECT_EQ(context.modifiers.size(), 1U) << "what changes values acts at the beginning alone";
  EXPECT_EQ(context.modifiers.front().type, "freeze");
}

TEST(States, SharedOnesFollowTheRunAndARanksOwnNeedsEqualRanks) {
  const auto dir = scratch();
  const std::string mine = std::to_string(world().rank());
  Bag bag = bag_with(counting({3}));
  {
    auto manager = manager_in(dir);
    Note shared("rollout " + mine);
    Note own("own " + mine, StateScope::per_rank);
    manager.add_state("shared", shared);
    manager.add_state("own", own);
    manager.save_checkpoint(bag);
    shared.text = own.text = "lost";
    const auto context = manager.load_checkpoint(bag);
    EXPECT_EQ(shared.text, "rollout 0");
    EXPECT_EQ(own.text, "own " + mine);
    EXPECT_EQ(*report_of(context, "own"), (StateReport{"own", "restored"}));
    EXPECT_EQ(*report_of(context, "rng"), (StateReport{"rng", "restored"}));
    Note more("new");
    manager.add_state("more", more);
    const auto again = manager.load_checkpoint(bag);
    EXPECT_EQ(more.text, "new");
    EXPECT_EQ(again.warnings.size(), 1U);
    EXPECT_THROW(manager.add_state("more", more), Error);
    EXPECT_THROW(manager.add_state("model", more), Error);
    manager.close();
  }
  if (world().size() == 1) return;
  const auto part = first_ranks(world().size() - 1);
  if (!part) return;
  Config config = config_for(dir);
  config.source = LocalSource{dir};
  CheckpointManager manager(*part, config);
  Note shared("?");
  Note own("kept", StateScope::per_rank);
  manager.add_state("shared", shared);
  manager.add_state("own", own);
  const auto context = manager.load_checkpoint(bag);
  EXPECT_EQ(shared.text, "rollout 0");
  EXPECT_EQ(own.text, "kept");
  EXPECT_NE(report_of(context, "own")->text.find("left as it is"), std::string::npos);
  EXPECT_NE(report_of(context, "rng")->text.find("left as it is"), std::string::npos);
  manager.close();
}

TEST(States, OneThatRefusesLeavesAllAsTheyWere) {
  auto manager = manager_in(scratch());
  Bag bag = bag_with(counting({3}));
  Note first("a");
  Note second("b");
  manager.add_state("first", first);
  manager.add_state("second", second);
  manager.save_checkpoint(bag);
  first.text = "later";
  const auto changed = counting({3}, 50);
  bag.parameters().front().data().copy_(changed);
  second.refuses = world().rank() == world().size() - 1;
  const std::string text = expect_same_error(Errc::internal, [&] { manager.load_checkpoint(bag); });
  EXPECT_NE(text.find("the note is full"), std::string::npos) << text;
  EXPECT_EQ(first.text, "later");
  EXPECT_TRUE(bag.parameters().front().equal(changed));
  manager.close();
}

TEST(States, AveragesLieBesideTheWeightsAndAreExported) {
  const auto dir = scratch();
  auto manager = manager_in(dir);
  Model model(1);
  WeightAverage average(model, 0.75);
  manager.add_state("ema", average);
  optim::SGD optimizer(one_group(model), optim::SGDOptions(1e-2));
  for (int step = 0; step < 3; ++step) {
    train(model, optimizer, 1);
    average.update();
  }
  const auto raw = model.weight.detach().clone();
  const auto averaged = average.average_of(model.weight).clone();
  EXPECT_FALSE(averaged.equal(raw));
  manager.save_checkpoint(model, optimizer, {.global_step = 3});
  manager.export_model(dir / "averaged.h5", model, ModelExport::averaged);
  EXPECT_TRUE(model.weight.equal(raw)) << "an export changes nothing";
  train(model, optimizer, 1);
  average.update();
  manager.load_checkpoint(model, optimizer);
  EXPECT_TRUE(model.weight.equal(raw)) << "a warm start takes the raw weights";
  EXPECT_TRUE(average.average_of(model.weight).equal(averaged));
  manager.remove_state("ema");
  expect_same_error(Errc::usage,
                    [&] { manager.export_model(dir / "none.h5", model, ModelExport::averaged); });
  manager.close();

  Config config;
  config.source = LocalSource{dir / "averaged.h5"};
  config.loading = LoadingConfig{.type = LoadingType::cold_start};
  CheckpointManager importer(world().raw(), config);
  Model other(9);
  importer.load_checkpoint(other);
  EXPECT_TRUE(other.weight.equal(averaged));
  importer.close();
}

TEST(States, LearningRatesAreRescaledOnlyOnRequest) {
  if (world().size() == 1) GTEST_SKIP() << "needs two numbers of ranks";
  const auto dir = scratch();
  Model model(1);
  optim::SGD optimizer(one_group(model), optim::SGDOptions(0.12));
  {
    auto manager = manager_in(dir);
    manager.save_checkpoint(model, optimizer);
    manager.close();
  }
  const auto part = first_ranks(1);
  if (!part) return;
  const auto rate_after = [&](RescaleRate how) {
    Config config = config_for(dir);
    config.source = LocalSource{dir};
    config.loading = LoadingConfig{.rescale_lr = how};
    CheckpointManager manager(*part, config);
    const auto context = manager.load_checkpoint(model, optimizer);
    EXPECT_NE(report_of(context, "learning rate"), nullptr);
    manager.close();
    return optimizer.param_groups().front().options().get_lr();
  };
  EXPECT_DOUBLE_EQ(rate_after(RescaleRate::off), 0.12);
  EXPECT_DOUBLE_EQ(rate_after(RescaleRate::linear), 0.12 / world().size());
  EXPECT_DOUBLE_EQ(rate_after(RescaleRate::sqrt), 0.12 / std::sqrt(world().size()));
}

}  // namespace
}  // namespace cairn::test
