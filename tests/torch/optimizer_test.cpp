#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <memory>

#include "torch/toy.hpp"

namespace cairn::test {
namespace {

namespace optim = torch::optim;
using OptimizerPtr = std::unique_ptr<optim::Optimizer>;
using Factory = std::function<OptimizerPtr(std::vector<optim::OptimizerParamGroup>)>;

template <class Optimizer, class Options>
Factory factory(const Options& options) {
  return [options](std::vector<optim::OptimizerParamGroup> groups) -> OptimizerPtr {
    return std::make_unique<Optimizer>(std::move(groups), options);
  };
}

template <class State>
const State* state_of(const optim::Optimizer& optimizer, const at::Tensor& parameter) {
  const auto it = optimizer.state().find(c10::guts::to_string(parameter.unsafeGetTensorImpl()));
  return it == optimizer.state().end() ? nullptr : &dynamic_cast<const State&>(*it->second);
}

struct Case {
  std::string name;
  Factory make;
};

const std::vector<Case>& cases() {
  using namespace torch::optim;
  static const std::vector<Case> all{
      {"SGD", factory<SGD>(SGDOptions(0.01))},
      {"SGD momentum",
       factory<SGD>(SGDOptions(0.01).momentum(0.9).dampening(0.1).weight_decay(0.01))},
      {"SGD nesterov", factory<SGD>(SGDOptions(0.01).momentum(0.9).nesterov(true))},
      {"Adam", factory<Adam>(AdamOptions(0.01).betas({0.8, 0.95}).eps(1e-7))},
      {"Adam amsgrad", factory<Adam>(AdamOptions(0.01).amsgrad(true).weight_decay(0.1))},
      {"AdamW", factory<AdamW>(AdamWOptions(0.01))},
      {"AdamW amsgrad", factory<AdamW>(AdamWOptions(0.01).amsgrad(true))},
      {"RMSprop", factory<RMSprop>(RMSpropOptions(0.01))},
      {"RMSprop centered", factory<RMSprop>(RMSpropOptions(0.01).momentum(0.5).centered(true))},
      {"Adagrad",
       factory<Adagrad>(AdagradOptions(0.1).lr_decay(0.1).initial_accumulator_value(0.3))}};
  return all;
}

class Resume : public testing::TestWithParam<EngineKind> {};
INSTANTIATE_TEST_SUITE_P(Engines, Resume, testing::Values(EngineKind::direct, EngineKind::mpio),
                         [](const auto& engine) { return std::string(to_string(engine.param)); });

TEST_P(Resume, IsBitIdenticalToARunWithoutInterruption) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    auto manager = manager_in(scratch(), {}, GetParam());
    Model steady(1);
    const auto steady_optimizer = c.make(one_group(steady));
    train(steady, *steady_optimizer, 3);
    manager.save_checkpoint(steady, *steady_optimizer, {.global_step = 3});
    train(steady, *steady_optimizer, 4);

    Model resumed(50);
    const auto resumed_optimizer = c.make(one_group(resumed));
    manager.load_checkpoint(resumed, *resumed_optimizer);
    train(resumed, *resumed_optimizer, 4);
    EXPECT_EQ(bytes_of(resumed), bytes_of(steady));

    // Into an optimizer that has state already, too.
    manager.load_checkpoint(resumed, *resumed_optimizer);
    train(resumed, *resumed_optimizer, 4);
    EXPECT_EQ(bytes_of(resumed), bytes_of(steady));
    manager.close();
  }
}

TEST(Optimizer, OptionsOfEveryGroupComeBack) {
  const auto groups = [](const Model& model) {
    return std::vector<optim::OptimizerParamGroup>{
        optim::OptimizerParamGroup({model.bias}, std::make_unique<optim::AdamWOptions>(0.1 + 0.2)),
        optim::OptimizerParamGroup({model.weight, model.unused})};
  };
  auto manager = manager_in(scratch());
  Model model(1);
  optim::AdamW saved(groups(model), optim::AdamWOptions(1.0 / 3).betas({0.7, 1 - 1e-9}));
  train(model, saved, 2);
  manager.save_checkpoint(model, saved);

  Model other(2);
  optim::AdamW loaded({optim::OptimizerParamGroup({other.bias}),
                       optim::OptimizerParamGroup({other.unused, other.weight})},
                      optim::AdamWOptions(7));
  auto& held = loaded.param_groups()[1].options();
  manager.load_checkpoint(other, loaded);
  EXPECT_EQ(loaded.param_groups()[0].options().get_lr(), 0.1 + 0.2);
  EXPECT_EQ(held.get_lr(), 1.0 / 3);
  EXPECT_EQ(dynamic_cast<optim::AdamWOptions&>(held).betas(), std::make_tuple(0.7, 1 - 1e-9));
  manager.close();
}

TEST(Optimizer, StateAppearsAndDisappearsWithTheCheckpoint) {
  auto manager = manager_in(scratch());
  Model model(1);
  optim::Adam saved(one_group(model), optim::AdamOptions(0.01));
  train(model, saved, 2);
  manager.save_checkpoint(model, saved);

  Model other(2);
  optim::Adam loaded(one_group(other), optim::AdamOptions(0.01));
  other.unused.mutable_grad() = at::ones({2});
  loaded.step();
  ASSERT_NE(state_of<optim::AdamParamState>(loaded, other.unused), nullptr);
  ASSERT_EQ(state_of<optim::AdamParamState>(loaded, other.weight), nullptr);
  manager.load_checkpoint(other, loaded);
  EXPECT_EQ(state_of<optim::AdamParamState>(loaded, other.unused), nullptr);
  const auto* state = state_of<optim::AdamParamState>(loaded, other.weight);
  ASSERT_NE(state, nullptr);
  EXPECT_EQ(state->step(), 2);
  EXPECT_FALSE(state->max_exp_avg_sq().defined());
  manager.close();
}

TEST(Optimizer, MisfitsChangeNothing) {
  using namespace torch::optim;
  auto manager = manager_in(scratch());
  Model model(1);
  AdamW saved(one_group(model), AdamWOptions(0.01));
  train(model, saved, 2);
  manager.save_checkpoint(model, saved);

  const auto refuse = [&](const std::string& about, const Factory& make, auto&& groups) {
    Model other(30);
    const auto optimizer = make(groups(other));
    train(other, *optimizer, 1);
    const auto before = bytes_of(other);
    const double rate = optimizer->param_groups()[0].options().get_lr();
    const auto text =
        expect_same_error(Errc::mismatch, [&] { manager.load_checkpoint(other, *optimizer); });
    EXPECT_NE(text.find(about), std::string::npos) << text;
    EXPECT_EQ(bytes_of(other), before);
    EXPECT_EQ(optimizer->param_groups()[0].options().get_lr(), rate);
    // The state is as it was as well: a twin that never tried to load goes the same way.
    Model twin(30);
    const auto twin_optimizer = make(groups(twin));
    train(twin, *twin_optimizer, 1);
    train(twin, *twin_optimizer, 2);
    train(other, *optimizer, 2);
    EXPECT_EQ(bytes_of(other), bytes_of(twin));
  };
  refuse("AdamW", factory<Adam>(AdamOptions(0.5)), one_group);
  refuse("groups", factory<AdamW>(AdamWOptions(0.5)), [](const Model& m) {
    return std::vector{OptimizerParamGroup({m.weight, m.unused}), OptimizerParamGroup({m.bias})};
  });
  refuse("'bias'", factory<AdamW>(AdamWOptions(0.5)), [](const Model& m) {
    return std::vector{OptimizerParamGroup({m.weight, m.unused})};
  });

  // Found only after model and optimizer were matched: the model has one tensor too few.
  Bag small;
  const at::Tensor bias = small.register_parameter("bias", counting({3}, 5));
  AdamW optimizer(std::vector{bias}, AdamWOptions(0.5));
  expect_same_error(Errc::mismatch, [&] { manager.load_checkpoint(small, optimizer); });
  EXPECT_TRUE(bias.equal(counting({3}, 5)));
  EXPECT_TRUE(optimizer.state().empty());
  manager.close();
}

TEST(Optimizer, ItsTensorsMayBeLeftInTheCheckpointButNotMissing) {
  auto manager = manager_in(scratch());
  Model model(1);
  optim::Adam optimizer(one_group(model), optim::AdamOptions(0.01));
  train(model, optimizer, 2);
  manager.save_checkpoint(model, optimizer);
  Model other(2);
  const auto context = manager.load_checkpoint(other);
  EXPECT_EQ(bytes_of(other), bytes_of(model));
  EXPECT_EQ(context.report.loaded.size(), 3U);

  manager.save_checkpoint(model, {.global_step = 1});
  expect_same_error(Errc::mismatch, [&] { manager.load_checkpoint(other, optimizer); });
  manager.close();
}

TEST(Optimizer, OthersAreNamedAndRefused) {
  auto manager = manager_in(scratch());
  Model model(1);
  optim::LBFGS unknown(model.parameters());
  const auto text =
      expect_same_error(Errc::unsupported, [&] { manager.save_checkpoint(model, unknown); });
  EXPECT_NE(text.find("LBFGS"), std::string::npos) << text;
  EXPECT_NE(text.find("Adagrad"), std::string::npos) << text;

  optim::SGD foreign(std::vector{counting({3}).requires_grad_()}, optim::SGDOptions(0.1));
  expect_same_error(Errc::usage, [&] { manager.save_checkpoint(model, foreign); });
  manager.close();
}

/// An optimizer over this rank's flat share of the model's parameters.
struct Sharded {
  explicit Sharded(const Model& model) {
    for (const auto& item : model.named_parameters()) {
      const auto size = static_cast<std::uint64_t>(item.value().numel());
      const Range range = balanced_range(size, world().size(), world().rank());
      const at::Tensor shard = item.value()
                                   .detach()
                                   .flatten()
                                   .narrow(0, static_cast<std::int64_t>(range.start),
                                           static_cast<std::int64_t>(range.count))
                                   .clone()
                                   .requires_grad_();
      shard.mutable_grad() = shard.detach() * 0.5;
      shards.push_back({item.key(), shard});
      shapes["optimizer/" + escape_component(item.key())] = {item.value().sizes().begin(),
                                                             item.value().sizes().end()};
    }
    std::vector<at::Tensor> parameters;
    for (const NamedTensor& shard : shards) parameters.push_back(shard.tensor);
    optimizer = std::make_unique<optim::Adam>(parameters, optim::AdamOptions(0.01));
  }

  ManagerOptions options() const {
    ManagerOptions options;
    options.optimizer_parameters = shards;
    options.placement = [shapes = shapes](const std::string& name, const at::Tensor& tensor) {
      const auto owner = shapes.find(name.substr(0, name.rfind('/')));
      if (owner == shapes.end()) {
        return Placement::replicated({tensor.sizes().begin(), tensor.sizes().end()});
      }
      return Placement::flat_split(owner->second, world().size(), world().rank());
    };
    return options;
  }

  std::vector<NamedTensor> shards;
  std::map<std::string, Shape> shapes;
  OptimizerPtr optimizer;
};

TEST(Optimizer, FlatShardsLoadWholeAndBack) {
  const auto dir = scratch();
  Model model(1);
  Sharded sharded(model);
  sharded.optimizer->step();
  auto sharding = manager_in(dir, sharded.options());
  sharding.save_checkpoint(model, *sharded.optimizer);

  Model other(2);
  optim::Adam whole(one_group(other), optim::AdamOptions(0.5));
  auto plain = manager_in(dir);
  plain.load_checkpoint(other, whole);
  EXPECT_EQ(whole.param_groups()[0].options().get_lr(), 0.01);
  for (const NamedTensor& shard : sharded.shards) {
    const at::Tensor parameter = other.named_parameters()[shard.name];
    const auto* full = state_of<optim::AdamParamState>(whole, parameter);
    const auto* part = state_of<optim::AdamParamState>(*sharded.optimizer, shard.tensor);
    ASSERT_TRUE(full != nullptr && part != nullptr);
    EXPECT_EQ(full->step(), 1);
    EXPECT_EQ(full->exp_avg().sizes(), parameter.sizes());
    const Range range = balanced_range(static_cast<std::uint64_t>(parameter.numel()),
                                       world().size(), world().rank());
    EXPECT_TRUE(full->exp_avg_sq()
                    .flatten()
                    .narrow(0, static_cast<std::int64_t>(range.start),
                            static_cast<std::int64_t>(range.count))
                    .equal(part->exp_avg_sq()));
  }

  plain.save_checkpoint(other, whole, {.global_step = 1});
  Sharded again(other);
  auto back = manager_in(dir, again.options());
  back.load_checkpoint(other, *again.optimizer);
  for (std::size_t i = 0; i < again.shards.size(); ++i) {
    const auto* now = state_of<optim::AdamParamState>(*again.optimizer, again.shards[i].tensor);
    const auto* then =
        state_of<optim::AdamParamState>(*sharded.optimizer, sharded.shards[i].tensor);
    EXPECT_TRUE(now->exp_avg().equal(then->exp_avg()));
  }
  for (auto* manager : {&sharding, &plain, &back}) manager->close();
}

TEST(Optimizer, RanksMaySplitTheParametersAmongThem) {
  auto manager = manager_in(scratch());
  const auto mine = [](const Model& model) {
    const auto parameters = model.parameters();
    std::vector<at::Tensor> own;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (static_cast<int>(i) % world().size() == world().rank()) own.push_back(parameters[i]);
    }
    for (const at::Tensor& tensor : own) tensor.mutable_grad() = tensor.detach() * 0.5;
    return own;
  };
  Model model(1);
  const auto parameters = mine(model);
  optim::Adam optimizer(parameters, optim::AdamOptions(0.01));
  optimizer.step();
  manager.save_checkpoint(model, optimizer);

  Model other(2);
  optim::Adam whole(one_group(other), optim::AdamOptions(0.5));
  manager.load_checkpoint(other, whole);
  EXPECT_EQ(whole.state().size(), 3U);
  optim::Adam part(mine(other), optim::AdamOptions(0.5));
  manager.load_checkpoint(other, part);
  for (const at::Tensor& parameter : part.param_groups()[0].params()) {
    EXPECT_TRUE(state_of<optim::AdamParamState>(part, parameter)
                    ->exp_avg()
                    .equal(state_of<optim::AdamParamState>(whole, parameter)->exp_avg()));
  }
  manager.close();
}

TEST(Optimizer, RanksMayHaveNone) {
  auto manager = manager_in(scratch());
  const bool last = world().rank() == world().size() - 1;
  Model model(1);
  optim::Adam optimizer(one_group(model), optim::AdamOptions(0.01));
  train(model, optimizer, 2);
  last ? manager.save_checkpoint(model, optimizer) : manager.save_checkpoint(model);

  Model other(2);
  optim::Adam loaded(one_group(other), optim::AdamOptions(0.5));
  last ? manager.load_checkpoint(other, loaded) : manager.load_checkpoint(other);
  EXPECT_EQ(bytes_of(other), bytes_of(model));
  EXPECT_EQ(loaded.param_groups()[0].options().get_lr(), last ? 0.01 : 0.5);
  EXPECT_EQ(loaded.state().size(), last ? 2U : 0U);
  manager.close();
}

TEST(Optimizer, OptionsMustAgreeOverTheRanks) {
  auto manager = manager_in(scratch());
  Model model(1);
  optim::SGD optimizer(one_group(model), optim::SGDOptions(0.1 + world().rank()));
  if (world().size() > 1) {
    const auto text =
        expect_same_error(Errc::mismatch, [&] { manager.save_checkpoint(model, optimizer); });
    EXPECT_NE(text.find("rank 1"), std::string::npos) << text;
  }
  manager.close();
}

}  // namespace
}  // namespace cairn::test
