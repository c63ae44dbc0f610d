#include <ATen/CPUGeneratorImpl.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adam.h>

#include <fstream>
#include <stdexcept>

#include "torch/network.hpp"

// What changes in a model after loading. The models know nothing of it.
namespace cairn::test {
namespace {

namespace nn = torch::nn;
namespace optim = torch::optim;

TEST(Freeze, TakesGradientsFromWhatItNames) {
  CheckpointManager manager(world().raw(),
                            config_of(pretrained(), {FreezeModifier{{"encoder", "**.bias"}}}));
  Network model(2);
  const auto context = manager.load_checkpoint(model);
  EXPECT_EQ(frozen(model), (std::vector<std::string>{"encoder.weight", "encoder.bias",
                                                     "decoder.inner.bias", "decoder.norm.bias"}));
  ASSERT_EQ(context.modifiers.size(), 1U);
  EXPECT_EQ(context.modifiers[0].type, "freeze");
  EXPECT_EQ(context.modifiers[0].names, frozen(model));
  manager.close();
}

TEST(Freeze, NamesThatDoNotExistChangeNothing) {
  CheckpointManager manager(world().raw(), config_of(pretrained(), {FreezeModifier{{"encoder"}},
                                                                    FreezeModifier{{"decodr"}}}));
  Network model(2);
  const auto before = everything(model);
  const auto text = expect_same_error(Errc::not_found, [&] { manager.load_checkpoint(model); });
  EXPECT_NE(text.find("'decoder'"), std::string::npos) << text;
  EXPECT_EQ(everything(model), before);
  manager.close();
}

TEST(Freeze, PathsOfOneRankAreEnough) {
  // A stage of a pipeline that only the last rank has.
  Bag stage = bag_with(counting({3}));
  const bool last = world().rank() == world().size() - 1;
  if (last) stage.register_parameter("head", counting({2}, 5));
  const auto dir = scratch();
  auto saver = manager_in(dir);
  saver.save_checkpoint(stage);
  CheckpointManager manager(world().raw(), config_of(dir, {FreezeModifier{{"head"}}}));
  const auto context = manager.load_checkpoint(stage);
  EXPECT_EQ(frozen(stage), last ? std::vector<std::string>{"head"} : std::vector<std::string>{});
  EXPECT_EQ(context.modifiers[0].names, std::vector<std::string>{"head"});
  saver.close();
  manager.close();
}

TEST(Reset, GivesFreshValuesThatAreEqualOnAllRanks) {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  generator.set_current_seed(100 + static_cast<unsigned>(world().rank()));
  const at::Tensor next = at::randn({5});
  generator.set_current_seed(100 + static_cast<unsigned>(world().rank()));
  CheckpointManager manager(world().raw(), config_of(pretrained(), {ResetModifier{{"decoder"}}}));
  Network model(2);
  Network saved(1);
  generator.set_current_seed(100 + static_cast<unsigned>(world().rank()));
  const auto context = manager.load_checkpoint(model);
  EXPECT_TRUE(at::randn({5}).equal(next));  // the generator is as it was
  expect_same_on_ranks(model);
  EXPECT_EQ(bytes_of(*model.encoder), bytes_of(*saved.encoder));
  EXPECT_NE(bytes_of(*model.decoder->inner), bytes_of(*saved.decoder->inner));
  EXPECT_TRUE(model.decoder->norm->weight.equal(at::ones({5})));
  EXPECT_EQ(context.modifiers[0].names,
            (std::vector<std::string>{"decoder.inner", "decoder.norm", "decoder.out"}));
  manager.close();
}

struct Own : Bag, Resettable {
  Own() { register_parameter("weight", counting({3}, 5)); }
  void reset_parameters() override {
    const at::NoGradGuard no_grad;
    named_parameters()["weight"].fill_(7);
  }
};

TEST(Reset, NeedsModulesThatCanResetThemselves) {
  Bag model;
  model.register_module("own", std::make_shared<Own>());
  model.register_module("other", std::make_shared<Bag>())
      ->register_parameter("weight", counting({3}));
  const auto dir = scratch();
  auto saver = manager_in(dir);
  saver.save_checkpoint(model);
  const auto before = bytes_of(model);
  for (const auto& [path, code] :
       {std::pair("other", Errc::unsupported), std::pair("own.weight", Errc::usage),
        std::pair("owm", Errc::not_found)}) {
    CheckpointManager manager(world().raw(), config_of(dir, {ResetModifier{{path}}}));
    expect_same_error(code, [&] { manager.load_checkpoint(model); });
    EXPECT_EQ(bytes_of(model), before);
    manager.close();
  }
  CheckpointManager manager(world().raw(), config_of(dir, {ResetModifier{{"own"}}}));
  manager.load_checkpoint(model);
  EXPECT_TRUE(parameter(model, "own.weight").equal(at::full({3}, 7.0F)));
  saver.close();
  manager.close();
}

TEST(Cast, ChangesFloatsAndResumes) {
  const auto run = scratch();
  Config config =
      config_of(pretrained(), {CastModifier{DType::bf16, {"decoder"}}, lora(2, {"decoder.inner"})});
  config.save.dir = run;
  CheckpointManager manager(world().raw(), config);
  Network model(2);
  manager.load_checkpoint(model);
  EXPECT_EQ(parameter(model, "encoder.weight").scalar_type(), at::kFloat);
  EXPECT_EQ(parameter(model, "decoder.out.weight").scalar_type(), at::kBFloat16);
  EXPECT_EQ(model.decoder->out->weight.scalar_type(), at::kBFloat16);
  EXPECT_EQ(model.decoder->inner->weight.scalar_type(), at::kBFloat16);  // with its adapter
  manager.save_checkpoint(model, {.global_step = 1});
  config.source = LocalSource{run};
  config.loading->type = LoadingType::warm_start;
  CheckpointManager resumed(world().raw(), config);
  Network other(3);
  resumed.prepare_model(other);
  resumed.load_checkpoint(other);
  EXPECT_EQ(everything(other), everything(model));
  manager.close();
  resumed.close();
}

TEST(Reset, ALayerThatComputesWithAnothersWeightIsRefused) {
  Bag model;
  nn::Linear first(4, 4);
  nn::Linear second(4, 4);
  model.register_module("first", first.ptr());
  model.register_module("second", second.ptr());
  second->weight = first->weight;
  const auto dir = scratch();
  auto saver = manager_in(dir);
  saver.save_checkpoint(model);
  CheckpointManager manager(world().raw(), config_of(dir, {ResetModifier{{"second"}}}));
  const auto before = bytes_of(model);
  const auto text = expect_same_error(Errc::unsupported, [&] { manager.load_checkpoint(model); });
  EXPECT_NE(text.find("'first.weight'"), std::string::npos) << text;
  EXPECT_EQ(bytes_of(model), before);
  EXPECT_TRUE(second->weight.is_same(first->weight));
  saver.close();
  manager.close();
}

TEST(Cast, NeedsItsMemoryBeforeAnythingChanges) {
  // More than any machine has, of one element that is stored.
  Bag model;
  model.register_parameter("weight", counting({3}));
  model.register_buffer("huge", at::zeros({1}).expand({std::int64_t{1} << 46}));
  const auto before = bytes_of(model.named_parameters()["weight"]);
  CheckpointManager manager(world().raw(), config_of(scratch(), {CastModifier{DType::f64}}));
  expect_same_error(Errc::internal, [&] { manager.prepare_model(model); });
  EXPECT_EQ(bytes_of(model.named_parameters()["weight"]), before);
  EXPECT_EQ(model.named_parameters()["weight"].scalar_type(), at::kFloat);
  manager.close();
}

TEST(Custom, ModifiersOfTheProgramRunInTheirPlace) {
  register_modifier_type("scale", [](const CustomModifier& settings, nn::Module& model) {
    const double factor = std::stod(settings.options.at("factor"));
    return [&model, factor] {
      const at::NoGradGuard no_grad;
      for (const at::Tensor& tensor : model.parameters()) tensor.mul_(factor);
      return ModifierReport{"scale", {}, "scaled"};
    };
  });
  Config config = Config::from_string(
      "model_modifier: {modifiers: [{type: scale, factor: 2}, {type: freeze, layers: [encoder]}]}");
  config.source = LocalSource{pretrained()};
  CheckpointManager manager(world().raw(), config);
  Network model(2);
  const auto context = manager.load_checkpoint(model);
  EXPECT_TRUE(parameter(model, "encoder.bias").equal(parameter(Network(1), "encoder.bias") * 2));
  ASSERT_EQ(context.modifiers.size(), 2U);
  EXPECT_EQ(context.modifiers[0].text, "scaled");
  manager.close();
}

TEST(Custom, ARefusalOnOneRankChangesNothingOnAny) {
  const bool last = world().rank() == world().size() - 1;
  register_modifier_type("refuse", [last](const CustomModifier&, nn::Module&) -> ModifierWork {
    if (last) throw std::runtime_error("not with me");
    return [] { return ModifierReport{"refuse", {}, {}}; };
  });
  CheckpointManager manager(
      world().raw(), config_of(pretrained(), {FreezeModifier{{"encoder"}}, lora(2, {"decoder"}),
                                              ResetModifier{{"decoder.norm"}},
                                              CastModifier{DType::f64}, CustomModifier{"refuse"}}));
  Network model(2);
  const auto before = everything(model);
  const auto text = expect_same_error(Errc::internal, [&] { manager.load_checkpoint(model); });
  EXPECT_NE(text.find("not with me"), std::string::npos) << text;
  EXPECT_EQ(everything(model), before);
  EXPECT_TRUE(manager.adapters().layers().empty());
  expect_same_error(Errc::usage, [] {
    CheckpointManager other(world().raw(), config_of(pretrained(), {CustomModifier{"nobody"}}));
    Network net(2);
    other.load_checkpoint(net);
  });
  manager.close();
}

/// Changes all that a modifier can reach, then throws on the last rank.
ModifierWork vandalize(const CustomModifier&, nn::Module& model) {
  return [&model] {
    const at::NoGradGuard no_grad;
    for (const at::Tensor& tensor : model.parameters()) tensor.fill_(7).requires_grad_(false);
    for (const at::Tensor& tensor : model.parameters()) tensor.set_data(tensor.to(at::kDouble));
    auto* network = dynamic_cast<Network*>(&model);
    network->decoder->register_parameter("new", at::ones({2}));
    network->register_buffer("table", at::ones({2}));
    network->register_module("extra", nn::Linear(2, 2));
    model.eval();
    at::randn({5});
    if (world().rank() == world().size() - 1) throw std::runtime_error("changed my mind");
    return ModifierReport{"vandalize", {}, {}};
  };
}

TEST(Custom, AFailureAfterTheMoveLeavesEverythingAsItWas) {
  register_modifier_type("vandalize", vandalize);
  const auto dir = scratch();
  auto saver = manager_in(dir);
  Network trained(1);
  const auto adam = [](Network& net) {
    return optim::Adam(net.parameters(), optim::AdamOptions(0.05));
  };
  const auto step = [](Network& net, optim::Adam& stepping) {
    stepping.zero_grad();
    net.forward(input()).pow(2).sum().backward();
    stepping.step();
  };
  auto trained_by = adam(trained);
  step(trained, trained_by);
  saver.save_checkpoint(trained, trained_by, {.global_step = 1});

  // A model in the middle of its own training.
  Network model(2);
  auto optimizer = adam(model);
  step(model, optimizer);
  const auto tensors = model.parameters();
  const auto names = model.named_parameters().keys();
  const auto before = everything(model);
  const auto state_now = [&] {
    std::vector<std::string> all;
    for (const at::Tensor& tensor : tensors) {
      all.push_back(bytes_of(tensor.grad()));
      const auto& of = static_cast<const optim::AdamParamState&>(
          *optimizer.state().at(c10::guts::to_string(tensor.unsafeGetTensorImpl())));
      all.push_back(std::to_string(of.step()) + bytes_of(of.exp_avg()) + bytes_of(of.exp_avg_sq()));
    }
    return all;
  };
  const auto state_before = state_now();
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  generator.set_current_seed(3);
  const at::Tensor next = at::randn({5});
  generator.set_current_seed(3);
  const double rate = optimizer.param_groups()[0].options().get_lr();

  CheckpointManager manager(
      world().raw(),
      config_of(dir,
                {FreezeModifier{{"encoder"}}, lora(2, {"decoder"}), CustomModifier{"vandalize"}},
                LoadingType::warm_start));
  const auto text =
      expect_same_error(Errc::internal, [&] { manager.load_checkpoint(model, optimizer); });
  EXPECT_NE(text.find("changed my mind"), std::string::npos) << text;
  EXPECT_EQ(everything(model), before);
  EXPECT_EQ(model.named_parameters().keys(), names);
  EXPECT_TRUE(model.buffers().empty());
  EXPECT_EQ(model.children().size(), 2U);
  EXPECT_TRUE(model.is_training());
  EXPECT_EQ(state_now(), state_before);
  EXPECT_EQ(optimizer.param_groups()[0].options().get_lr(), rate);
  EXPECT_TRUE(at::randn({5}).equal(next));
  EXPECT_TRUE(manager.adapters().layers().empty());
  step(model, optimizer);  // with the tensors that it always had
  EXPECT_NE(everything(model), before);
  saver.close();
  manager.close();
}

/// A rule that makes the last rank fail when all tensors are filled.
std::string after_the_move(const std::string& action) {
  const int size = world().size();
  return std::string(size == 1 ? "load.move.end:" : "load.replicated.end:") +
         std::to_string(size - 1) + ":" + action;
}

TEST(Custom, AFailureOfTheMoveLeavesEverythingAsItWas) {
  register_modifier_type("look on", [](const CustomModifier&, nn::Module&) {
    return [] { return ModifierReport{"look on", {}, {}}; };
  });
  const auto dir = pretrained();
  CheckpointManager manager(world().raw(), config_of(dir, {CustomModifier{"look on"}}));
  Network model(2);
  const auto before = everything(model);
  {
    const ScopedFault fault(after_the_move("error"));
    const auto text = expect_same_error(Errc::io, [&] { manager.load_checkpoint(model); });
    EXPECT_EQ(text.find("partly filled"), std::string::npos) << text;
  }
  EXPECT_EQ(everything(model), before);
  manager.load_checkpoint(model);
  EXPECT_NE(everything(model), before);
  manager.close();
}

/// A model and Adam in the middle of a training, and a run that has a later checkpoint of it.
struct Training {
  Network model{2};
  optim::Adam optimizer{model.parameters(), optim::AdamOptions(0.05)};
  std::filesystem::path dir = scratch();
  Training() {
    auto saver = manager_in(dir);
    Network later(1);
    optim::Adam stepping(later.parameters(), optim::AdamOptions(0.05));
    step(later, stepping);
    for (const std::uint64_t at : {1U, 2U}) {
      saver.save_checkpoint(later, stepping, {.global_step = at});
    }
    saver.close();
    step(model, optimizer);
  }
  static void step(Network& net, optim::Adam& stepping) {
    stepping.zero_grad();
    net.forward(input()).pow(2).sum().backward();
    stepping.step();
  }
  /// Of the model and of the optimizer's state.
  std::vector<std::string> now() const {
    auto all = everything(model);
    for (const at::Tensor& tensor : model.parameters()) {
      const auto& of = static_cast<const optim::AdamParamState&>(
          *optimizer.state().at(c10::guts::to_string(tensor.unsafeGetTensorImpl())));
      all.push_back(std::to_string(of.step()) + bytes_of(of.exp_avg()) + bytes_of(of.exp_avg_sq()));
    }
    return all;
  }
};

Config resuming(const Training& training, VerifyWhen verify) {
  Config config = config_of(training.dir, {}, LoadingType::warm_start);
  config.loading->keep_copy = true;
  config.loading->verify = verify;
  return config;
}

TEST(KeepCopy, ADiskThatFailsInTheMoveLeavesEverythingAsItWas) {
  Training training;
  const auto before = training.now();
  for (const VerifyWhen verify : {VerifyWhen::before, VerifyWhen::loaded, VerifyWhen::never}) {
    CheckpointManager manager(world().raw(), resuming(training, verify));
    // Other rules each time: passes are counted since the rules changed.
    const ScopedFault fault(after_the_move("error") + ",nowhere:0:error:" +
                            std::to_string(static_cast<int>(verify) + 1));
    const auto text = expect_same_error(
        Errc::io, [&] { manager.load_checkpoint(training.model, training.optimizer); });
    EXPECT_NE(text.find("load: move"), std::string::npos) << text;
    EXPECT_NE(text.find("put back"), std::string::npos) << text;
    EXPECT_EQ(text.find("partly filled"), std::string::npos) << text;
    EXPECT_EQ(training.now(), before);
    manager.close();
  }
  Training::step(training.model, training.optimizer);  // with the tensors that it always had
  EXPECT_NE(training.now(), before);
}

/// One wrong bit in the middle of a tensor of the checkpoint.
void damage(const std::filesystem::path& path, const std::string& name) {
  if (world().is_root()) {
    const std::uint64_t at = open_checkpoint(Comm(MPI_COMM_SELF), path).find(name)->offset + 2;
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const int byte = file.get();
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(byte ^ 1));
  }
  EXPECT_TRUE(world().all_equal(1));  // damaged for all from here on
}

TEST(KeepCopy, DamageThatIsFoundInMemoryLeavesEverythingAsItWas) {
  Training training;
  const auto before = training.now();
  const auto newest = checkpoint_path(training.dir, 2);
  damage(newest, "model/encoder.weight");
  Config config = resuming(training, VerifyWhen::loaded);
  config.source = LocalSource{newest};
  CheckpointManager manager(world().raw(), config);
  const auto text = expect_same_error(
      Errc::corrupt, [&] { manager.load_checkpoint(training.model, training.optimizer); });
  EXPECT_NE(text.find("put back"), std::string::npos) << text;
  EXPECT_EQ(training.now(), before);
  // Of the run's directory the one before is taken then: the model is as it was.
  manager.set_source(LocalSource{training.dir});
  EXPECT_EQ(manager.load_checkpoint(training.model, training.optimizer).global_step, 1U);
  manager.close();
}

struct Refusing : Bag, Resettable {
  Refusing() { register_parameter("weight", counting({3}, 5)); }
  void reset_parameters() override { throw std::runtime_error("not now"); }
};

TEST(KeepCopy, AModuleThatDoesNotResetItselfLeavesEverythingAsItWas) {
  Bag model;
  model.register_module("own", std::make_shared<Refusing>());
  const auto dir = scratch();
  auto saver = manager_in(dir);
  saver.save_checkpoint(model);
  saver.close();
  const auto saved = bytes_of(model);
  {
    const at::NoGradGuard no_grad;
    parameter(model, "own.weight").zero_();
  }
  const auto before = bytes_of(model);
  Config config = config_of(dir, {ResetModifier{{"own"}}});
  for (const bool keep : {true, false}) {
    config.loading->keep_copy = keep;
    CheckpointManager manager(world().raw(), config);
    const auto text = expect_same_error(Errc::internal, [&] { manager.load_checkpoint(model); });
    EXPECT_NE(text.find("not now"), std::string::npos) << text;
    EXPECT_EQ(text.find("all tensors are filled") == std::string::npos, keep) << text;
    EXPECT_EQ(bytes_of(model), keep ? before : saved);
    manager.close();
  }
}

/// Damages a tensor that a Bag of `weight` alone does not want.
void damage_other(const std::filesystem::path& path) {
  if (!world().is_root()) return;
  const std::uint64_t at = open_checkpoint(Comm(MPI_COMM_SELF), path).find("model/other")->offset;
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(at));
  file.put('x');
}

TEST(Fallback, IsNotForALoadThatHasBegunToFill) {
  const auto dir = scratch();
  auto saver = manager_in(dir);
  Bag both = bag_with(counting({3}));
  both.register_parameter("other", counting({4}));
  saver.save_checkpoint(both, {.global_step = 1});
  const auto newest = saver.save_checkpoint(both, {.global_step = 2});
  damage_other(newest);
  EXPECT_TRUE(world().all_equal(1));  // damaged for all from here on
  register_modifier_type("look away", [](const CustomModifier&, nn::Module&) {
    return [] { return ModifierReport{"look away", {}, {}}; };
  });
  Bag bag = bag_with(counting({3}, 9));
  {
    CheckpointManager manager(world().raw(), config_of(dir, {}));
    const ScopedFault fault(after_the_move("damage"));
    const auto text = expect_same_error(Errc::corrupt, [&] { manager.load_checkpoint(bag); });
    EXPECT_NE(text.find("partly filled"), std::string::npos) << text;
    manager.close();
  }
  // Where the program's own modifiers made a copy necessary, that is put back first.
  CheckpointManager manager(world().raw(), config_of(dir, {CustomModifier{"look away"}}));
  const ScopedFault fault(after_the_move("damage:1"));
  EXPECT_EQ(manager.load_checkpoint(bag).global_step, 1U);
  saver.close();
  manager.close();
}

}  // namespace
}  // namespace cairn::test
