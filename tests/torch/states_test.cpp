#include <torch/optim/sgd.h>

#include <cmath>

#include "cairn/average.hpp"
#include "torch/note.hpp"
#include "torch/part.hpp"
#include "torch/toy.hpp"

// What of a trainer's state is no tensor of the model or optimizer.
namespace cairn::test {
namespace {

namespace optim = torch::optim;

const StateReport* report_of(const CheckpointContext& context, const std::string& name) {
  for (const StateReport& report : context.report.states) {
    if (report.name == name) return &report;
  }
  return nullptr;
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

TEST(States, OneThatNobodyTakesIsToldOf) {
  const auto dir = scratch();
  Bag bag = bag_with(counting({3}));
  {
    auto manager = manager_in(dir);
    Note shared("a");
    Note own("b", StateScope::per_rank);
    Note trainers("c");
    manager.add_state("sampler", shared);
    manager.add_state("own", own);
    manager.add_state("trainer", trainers);  // a program without the callback does without it
    manager.save_checkpoint(bag);
    EXPECT_TRUE(manager.load_checkpoint(bag).warnings.empty());
    manager.close();
  }
  auto manager = manager_in(dir);
  Note misspelt("as it was");
  manager.add_state("sampel", misspelt);
  const auto context = manager.load_checkpoint(bag);
  EXPECT_EQ(misspelt.text, "as it was");
  ASSERT_EQ(context.warnings.size(), 2U);
  EXPECT_NE(context.warnings[0].find("has no state 'sampel'"), std::string::npos);
  EXPECT_NE(context.warnings[1].find("nobody takes 'own', 'sampler':"), std::string::npos)
      << context.warnings[1];
  for (const char* name : {"own", "sampler"}) {
    ASSERT_NE(report_of(context, name), nullptr) << name;
    EXPECT_NE(report_of(context, name)->text.find("not loaded"), std::string::npos) << name;
  }
  EXPECT_EQ(report_of(context, "trainer"), nullptr);
  Config cold = config_for(dir);
  cold.source = LocalSource{dir};
  cold.loading = LoadingConfig{.type = LoadingType::cold_start};
  manager.close();
  CheckpointManager beginner(world().raw(), cold);
  EXPECT_TRUE(beginner.load_checkpoint(bag).warnings.empty()) << "it takes no states";
  beginner.close();
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
