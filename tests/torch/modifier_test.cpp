#include <ATen/CPUGeneratorImpl.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/optim/adam.h>

#include <algorithm>

#include "torch/toy.hpp"

// What changes in a model after loading. The models know nothing of it.
namespace cairn::test {
namespace {

namespace nn = torch::nn;
namespace optim = torch::optim;

struct Decoder : nn::Module {
  explicit Decoder(std::int64_t classes) {
    inner = register_module("inner", nn::Linear(6, 5));
    norm = register_module("norm", nn::LayerNorm(nn::LayerNormOptions({5})));
    out = register_module("out", nn::Linear(nn::LinearOptions(5, classes).bias(false)));
  }
  at::Tensor forward(const at::Tensor& x) { return out(norm(inner(x)).tanh()); }
  nn::Linear inner{nullptr}, out{nullptr};
  nn::LayerNorm norm{nullptr};
};

struct Network : nn::Module {
  explicit Network(double first) {
    encoder = register_module("encoder", nn::Linear(4, 6));
    decoder = register_module("decoder", std::make_shared<Decoder>(3));
    const at::NoGradGuard no_grad;
    for (const at::Tensor& tensor : parameters()) {
      tensor.copy_((counting(tensor.sizes(), first) * 0.7).sin() * 0.5);
      first += 11;
    }
  }
  at::Tensor forward(const at::Tensor& x) { return decoder->forward(encoder(x).tanh()); }
  nn::Linear encoder{nullptr};
  std::shared_ptr<Decoder> decoder;
};

at::Tensor input() { return (counting({7, 4}) * 0.3).cos(); }

at::Tensor parameter(const nn::Module& model, const std::string& name) {
  return model.named_parameters()[name];
}

/// Names, values and whether they are trained: all that a failed load must not change.
std::vector<std::string> everything(const nn::Module& model) {
  std::vector<std::string> all;
  for (const auto& item : model.named_parameters()) {
    all.push_back(item.key() + (item.value().requires_grad() ? " trained " : " frozen ") +
                  bytes_of(item.value()));
  }
  return all;
}

std::vector<std::string> frozen(const nn::Module& model) {
  std::vector<std::string> names;
  for (const auto& item : model.named_parameters()) {
    if (!item.value().requires_grad()) names.push_back(item.key());
  }
  return names;
}

Config config_of(const std::filesystem::path& dir, std::vector<Modifier> modifiers,
                 LoadingType type = LoadingType::transfer_learning) {
  Config config;
  config.source = LocalSource{dir};
  config.save.dir = dir;
  config.loading = LoadingConfig{};
  config.loading->type = type;
  config.loading->strict = type != LoadingType::transfer_learning;
  config.modifiers = std::move(modifiers);
  return config;
}

/// A run directory with a checkpoint of Network(1).
std::filesystem::path pretrained() {
  const auto dir = scratch();
  auto manager = manager_in(dir);
  manager.save_checkpoint(Network(1), {.epoch = 3, .global_step = 30});
  manager.close();
  return dir;
}

/// Equal on all ranks, element by element.
void expect_same_on_ranks(const nn::Module& model) {
  std::string mine;
  for (const std::string& text : everything(model)) mine += text;
  std::string of_root = mine;
  world().broadcast(of_root);
  EXPECT_EQ(mine, of_root);
}

LoraModifier lora(std::uint64_t rank, std::vector<std::string> targets) {
  LoraModifier modifier;
  modifier.rank = rank;
  modifier.target_modules = std::move(targets);
  return modifier;
}

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

TEST(Lora, GradientsAreThoseOfTheFormula) {
  Network model(1);
  Network plain(1);
  LoraAdapters adapters;
  LoraModifier settings = lora(2, {"decoder"});
  settings.alpha = 3;
  adapters.attach(model, settings, 17);
  EXPECT_EQ(adapters.layers(), (std::vector<std::string>{"decoder.inner", "decoder.out"}));
  EXPECT_TRUE(model.forward(input()).equal(plain.forward(input())));  // B is 0
  for (const std::string layer : {"decoder.inner", "decoder.out"}) {
    const at::NoGradGuard no_grad;
    const at::Tensor b = parameter(model, layer + ".lora_B");
    b.copy_(counting(b.sizes(), 2).sin());
  }
  adapters.apply();
  model.forward(input()).pow(2).sum().backward();

  // The same by hand: y = x W^T + (alpha / rank) (x A^T) B^T, layer by layer.
  const auto leaf = [&](const std::string& name) {
    return parameter(model, name).detach().clone().set_requires_grad(true);
  };
  const at::Tensor a1 = leaf("decoder.inner.lora_A"), b1 = leaf("decoder.inner.lora_B");
  const at::Tensor a2 = leaf("decoder.out.lora_A"), b2 = leaf("decoder.out.lora_B");
  const at::Tensor x = plain.encoder(input()).tanh();
  const at::Tensor hidden = plain.decoder->inner(x) + 1.5 * x.matmul(a1.t()).matmul(b1.t());
  const at::Tensor z = plain.decoder->norm(hidden).tanh();
  const at::Tensor y = plain.decoder->out(z) + 1.5 * z.matmul(a2.t()).matmul(b2.t());
  y.pow(2).sum().backward();
  EXPECT_TRUE(model.forward(input()).allclose(y, 1e-6, 1e-6));
  const auto near = [&](const std::string& name, const at::Tensor& by_hand) {
    const at::Tensor grad = parameter(model, name).grad();
    ASSERT_TRUE(grad.defined()) << name;
    EXPECT_TRUE(grad.allclose(by_hand.grad(), 1e-6, 1e-6)) << name << grad - by_hand.grad();
    EXPECT_GT(grad.abs().max().item<double>(), 1e-3) << name;
  };
  near("decoder.inner.lora_A", a1);
  near("decoder.inner.lora_B", b1);
  near("decoder.out.lora_A", a2);
  near("decoder.out.lora_B", b2);
  for (const auto& item : model.named_parameters()) {
    const bool trained = item.key().find("lora") != std::string::npos ||
                         item.key().find("encoder") != std::string::npos;
    EXPECT_EQ(item.value().grad().defined(), trained) << item.key();
  }
}

TEST(Lora, TrainsStepByStepAndTheBaseStays) {
  Network model(1);
  LoraAdapters adapters;
  adapters.attach(model, lora(2, {"decoder.inner"}), 17);
  const auto base = bytes_of(parameter(model, "decoder.inner.weight"));
  optim::Adam optimizer(adapters.parameters(), optim::AdamOptions(0.05));
  std::vector<double> losses;
  for (int step = 0; step < 5; ++step) {
    adapters.apply();
    optimizer.zero_grad();
    const at::Tensor loss = (model.forward(input()) - 1).pow(2).sum();
    losses.push_back(loss.item<double>());
    loss.backward();
    optimizer.step();
  }
  EXPECT_LT(losses.back(), losses.front());
  EXPECT_EQ(bytes_of(parameter(model, "decoder.inner.weight")), base);
  EXPECT_THROW((model.forward(input()) - 1).pow(2).sum().backward(), c10::Error);  // no apply()
}

TEST(Lora, MergingComputesTheSameAndComesBackExactly) {
  Network model(1);
  LoraAdapters adapters;
  adapters.attach(model, lora(3, {"decoder.*"}), 5);
  {
    const at::NoGradGuard no_grad;
    for (const at::Tensor& tensor : adapters.parameters()) {
      tensor.copy_((counting(tensor.sizes(), 3) * 1.3).sin());
    }
  }
  adapters.apply();
  const at::Tensor by_adapters = model.forward(input());
  const auto base = everything(model);
  adapters.merge();
  adapters.merge();
  EXPECT_TRUE(adapters.merged());
  EXPECT_TRUE(model.forward(input()).allclose(by_adapters, 1e-5, 1e-5));
  EXPECT_NE(everything(model), base);
  adapters.unmerge();
  EXPECT_EQ(everything(model), base);
  EXPECT_TRUE(model.forward(input()).equal(by_adapters));
}

TEST(Lora, DropoutIsForTrainingOnly) {
  Network model(1);
  LoraAdapters adapters;
  LoraModifier settings = lora(4, {"decoder"});
  settings.dropout = 0.5;
  adapters.attach(model, settings, 5);
  {
    const at::NoGradGuard no_grad;
    for (const at::Tensor& tensor : adapters.parameters()) tensor.fill_(0.1);
  }
  const auto outputs = [&] {
    std::vector<std::string> all;
    for (int i = 0; i < 8; ++i) {
      adapters.apply();
      all.push_back(bytes_of(model.forward(input())));
    }
    return all;
  };
  const auto training = outputs();
  EXPECT_NE(std::count(training.begin(), training.end(), training[0]), 8);
  model.eval();
  const auto evaluating = outputs();
  EXPECT_EQ(std::count(evaluating.begin(), evaluating.end(), evaluating[0]), 8);
}

TEST(Lora, TargetsMustBeThereAndOfOneRank) {
  Network model(1);
  LoraAdapters adapters;
  const auto before = everything(model);
  EXPECT_THROW(adapters.attach(model, lora(2, {"decoder.norm"}), 1), Error);
  EXPECT_EQ(everything(model), before);
  adapters.attach(model, lora(2, {"decoder"}), 1);
  adapters.attach(model, lora(2, {"decoder.out"}), 9);  // keeps what is there
  EXPECT_EQ(adapters.layers().size(), 2U);
  EXPECT_THROW(adapters.attach(model, lora(3, {"decoder.out"}), 1), Error);
}

TEST(Lora, ATransferTrainsSavesAndResumes) {
  const auto dir = pretrained();
  const auto run = scratch();
  Config config = config_of(dir, {FreezeModifier{{"encoder"}}, lora(2, {"decoder"})});
  config.save.dir = run;
  CheckpointManager manager(world().raw(), config);
  Network model(2);
  const auto context = manager.load_checkpoint(model);
  EXPECT_EQ(context.report.loaded.size(), 7U);
  EXPECT_EQ(context.report.skipped.size(), 4U);
  EXPECT_EQ(context.report.fraction_matched, 1);
  expect_same_on_ranks(model);  // A, too
  auto adapters = manager.adapters();
  optim::Adam optimizer(adapters.parameters(), optim::AdamOptions(0.05));
  const auto step = [](Network& net, LoraAdapters lora_of, optim::Optimizer& stepping) {
    lora_of.apply();
    stepping.zero_grad();
    (net.forward(input()) - 1).pow(2).sum().backward();
    stepping.step();
  };
  for (int i = 0; i < 3; ++i) step(model, adapters, optimizer);
  const auto path = manager.save_checkpoint(model, optimizer, {.global_step = 33});

  config.source = LocalSource{run};
  config.loading->type = LoadingType::warm_start;
  CheckpointManager resumed(world().raw(), config);
  Network other(9);
  resumed.prepare_model(other);
  auto others = resumed.adapters();
  optim::Adam resumed_optimizer(others.parameters(), optim::AdamOptions(0.5));
  EXPECT_EQ(resumed.load_checkpoint(other, resumed_optimizer).global_step, 33U);
  EXPECT_EQ(everything(other), everything(model));
  step(model, adapters, optimizer);
  step(other, others, resumed_optimizer);
  EXPECT_EQ(everything(other), everything(model));

  // Without the modifier the adapters of the checkpoint have nowhere to go.
  config.modifiers.clear();
  CheckpointManager without(world().raw(), config);
  Network bare(9);
  const auto text = expect_same_error(Errc::mismatch, [&] { without.load_checkpoint(bare); });
  EXPECT_NE(text.find("lora modifier"), std::string::npos) << text;
  for (auto* each : {&manager, &resumed, &without}) each->close();
}

TEST(Lora, ExportsAdaptersAloneOrMerged) {
  const auto dir = pretrained();
  CheckpointManager manager(world().raw(), config_of(dir, {lora(2, {"decoder"})}));
  Network model(2);
  manager.load_checkpoint(model);
  auto adapters = manager.adapters();
  {
    const at::NoGradGuard no_grad;
    for (const at::Tensor& tensor : adapters.parameters()) tensor.fill_(0.25);
  }
  adapters.apply();
  const at::Tensor expected = model.forward(input());
  const auto merged = scratch() / "merged.h5";
  const auto alone = scratch() / "adapters.h5";
  manager.export_model(merged, model, ModelExport::merged);
  manager.export_model(alone, model, ModelExport::adapters);
  EXPECT_EQ(open_checkpoint(world(), alone).tensors.size(), 4U);

  CheckpointManager plain(world().raw(), config_of(merged, {}, LoadingType::weights_only));
  Network bare(9);
  plain.load_checkpoint(bare);
  EXPECT_TRUE(bare.forward(input()).allclose(expected, 1e-5, 1e-5));

  // The base from one checkpoint, the adapters from another.
  Network other(9);
  CheckpointManager both(world().raw(), config_of(dir, {lora(2, {"decoder"})}));
  both.load_checkpoint(other);
  both.set_source(LocalSource{alone});
  const auto context = both.load_checkpoint(other);
  EXPECT_EQ(context.report.loaded.size(), 4U);
  EXPECT_TRUE(other.forward(input()).allclose(expected, 1e-6, 1e-6));

  adapters.merge();
  expect_same_error(Errc::usage, [&] { manager.save_checkpoint(model); });
  expect_same_error(Errc::usage, [&] { manager.load_checkpoint(model); });
  adapters.unmerge();
  for (auto* each : {&manager, &plain, &both}) each->close();
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

}  // namespace
}  // namespace cairn::test
