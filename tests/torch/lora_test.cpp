#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/embedding.h>
#include <torch/optim/adam.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "torch/network.hpp"

// Low-rank adapters: what they compute, and what becomes of them in checkpoints.
namespace cairn::test {
namespace {

namespace nn = torch::nn;
namespace optim = torch::optim;

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

/// A language model whose head may be tied to its embedding.
struct Tied : nn::Module {
  /// LibTorch has no call that registers one parameter in two places.
  struct Registered : nn::Module {
    static constexpr torch::OrderedDict<std::string, at::Tensor> Module::*kParameters =
        &Registered::parameters_;
  };

  Tied() {
    wte = register_module("wte", nn::Embedding(6, 4));
    middle = register_module("middle", nn::Linear(4, 4));
    lm_head = register_module("lm_head", nn::Linear(nn::LinearOptions(4, 6).bias(false)));
  }
  void share(nn::Linear& linear, const at::Tensor& weight) {
    ((*linear).*Registered::kParameters)["weight"] = weight;
    linear->weight = weight;
  }
  nn::Embedding wte{nullptr};
  nn::Linear middle{nullptr}, lm_head{nullptr};
};

/// The ways to tie a head, each as a function of the model.
std::vector<std::function<void(Tied&)>> ways_to_tie() {
  return {[](Tied& model) { model.lm_head->weight = model.wte->weight; },
          [](Tied& model) { model.share(model.lm_head, model.wte->weight); },
          [](Tied& model) { model.wte->weight = model.lm_head->weight; },
          [](Tied& model) { model.lm_head->weight.set_data(model.wte->weight); }};
}

TEST(Lora, TiedWeightsAreRefused) {
  for (const auto& tie : ways_to_tie()) {
    Tied model;
    tie(model);
    const auto before = everything(model);
    const at::Tensor head = model.lm_head->weight;
    LoraAdapters adapters;
    const auto text = expect_local_error(Errc::unsupported, [&] {
      adapters.attach(model, lora(2, {"lm_head", "middle"}), 1);
    });
    EXPECT_NE(text.find("'lm_head"), std::string::npos) << text;
    EXPECT_NE(text.find("'wte"), std::string::npos) << text;
    EXPECT_EQ(everything(model), before);
    EXPECT_TRUE(model.lm_head->weight.is_same(head));
    EXPECT_TRUE(adapters.layers().empty());
    adapters.attach(model, lora(2, {"middle"}), 1);  // the others may have adapters
    EXPECT_EQ(adapters.layers(), std::vector<std::string>{"middle"});
  }
  // Two linear layers of one parameter: the sum of both adapters would be the weight of each.
  Tied model;
  nn::Linear twin = model.register_module("twin", nn::Linear(4, 4));
  model.share(twin, model.middle->weight);
  LoraAdapters adapters;
  const auto text = expect_local_error(Errc::unsupported, [&] {
    adapters.attach(model, lora(2, {"middle", "twin"}), 1);
  });
  EXPECT_NE(text.find("'twin"), std::string::npos) << text;
}

TEST(Lora, AFailedMergeChangesNothing) {
  Network model(1);
  LoraAdapters adapters;
  adapters.attach(model, lora(2, {"decoder"}), 17);
  const at::NoGradGuard no_grad;
  for (const at::Tensor& tensor : adapters.parameters()) tensor.fill_(0.25);
  adapters.apply();
  at::Tensor b = parameter(model, "decoder.out.lora_B");
  const at::Tensor values = b.detach();
  b.set_data(at::ones({3, 7}));  // what the program should not do
  const auto before = everything(model);
  const auto output = bytes_of(model.forward(input()));
  EXPECT_THROW(adapters.merge(), c10::Error);
  EXPECT_FALSE(adapters.merged());
  EXPECT_EQ(everything(model), before);
  EXPECT_EQ(bytes_of(model.forward(input())), output);
  b.set_data(values);
  const auto whole = everything(model);
  adapters.merge();
  adapters.unmerge();
  EXPECT_EQ(everything(model), whole);
}

TEST(Lora, SettingsAreCheckedBeforeAnythingChanges) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto dir = pretrained();
  std::vector<LoraModifier> wrong(6, lora(2, {"decoder"}));
  wrong[0].rank = 0;
  wrong[1].dropout = 1.5;
  wrong[2].dropout = -0.5;
  wrong[3].alpha = nan;
  wrong[4].alpha = 0;
  wrong[5].target_modules.clear();
  for (const LoraModifier& settings : wrong) {
    Network model(2);
    const auto before = everything(model);
    LoraAdapters adapters;
    EXPECT_THROW(adapters.attach(model, settings, 1), Error);
    expect_same_error(Errc::usage, [&] {
      CheckpointManager manager(world().raw(), config_of(dir, {settings}));
      manager.load_checkpoint(model);
    });
    EXPECT_EQ(everything(model), before);
  }
}

TEST(Lora, AdaptersThatDoNotFitTheirLayerAreRefusedBeforeTheLoad) {
  const auto dir = pretrained();
  const std::vector<std::vector<std::pair<std::string, at::Tensor>>> wrong{
      {{"lora_A", at::zeros({2, 5})}, {"lora_B", at::zeros({4, 2})}},
      {{"lora_A", at::zeros({2, 4})}, {"lora_B", at::zeros({3, 2})}},
      {{"lora_A", at::zeros({2, 5})}},
      {{"lora_B", at::zeros({3, 2})}}};
  for (const auto& parameters : wrong) {
    Network model(2);
    for (const auto& [name, tensor] : parameters) {
      model.decoder->out->register_parameter(name, tensor);
    }
    CheckpointManager manager(world().raw(), config_of(dir, {lora(2, {"decoder"})}));
    const auto before = everything(model);
    const auto text = expect_same_error(Errc::usage, [&] { manager.load_checkpoint(model); });
    EXPECT_NE(text.find("'decoder.out'"), std::string::npos) << text;
    EXPECT_EQ(everything(model), before);
    EXPECT_TRUE(manager.adapters().layers().empty());
    manager.close();
  }
}

/// Beside a base that does not change, a delta holds little more than the adapters.
TEST(Lora, ADeltaHoldsWhatIsTrained) {
  const auto layer = [] { return nn::Linear(nn::LinearOptions(1024, 1024).bias(false)); };
  nn::Sequential model(layer(), layer());
  {
    const at::NoGradGuard no_grad;  // the same on all ranks
    for (const at::Tensor& tensor : model->parameters())
      tensor.copy_(counting(tensor.sizes()).sin());
  }
  const auto dir = scratch();
  Config config;
  config.save.dir = dir;
  config.save.delta = true;
  config.modifiers = {lora(8, {"*"})};
  CheckpointManager manager(world().raw(), config);
  manager.prepare_model(*model);
  auto adapters = manager.adapters();
  const auto whole = manager.save_checkpoint(*model, {.global_step = 1});
  {
    const at::NoGradGuard no_grad;
    for (const at::Tensor& tensor : adapters.parameters()) tensor.add_(1);
  }
  adapters.apply();
  const auto delta = manager.save_checkpoint(*model, {.global_step = 2});
  const auto bytes = [](const std::filesystem::path& path) {
    return static_cast<double>(std::filesystem::file_size(path));
  };
  EXPECT_LT(bytes(delta), 0.05 * bytes(whole));

  config.source = LocalSource{dir};
  CheckpointManager resumed(world().raw(), config);
  nn::Sequential other(layer(), layer());
  resumed.load_checkpoint(*other);
  EXPECT_TRUE(everything(*other) == everything(*model));  // too long to be shown
  manager.close();
  resumed.close();
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

TEST(Lora, ACloneHasAdaptersOfItsOwn) {
  nn::Sequential model(nn::Linear(4, 6), nn::Linear(6, 2));
  LoraAdapters adapters;
  adapters.attach(*model, lora(2, {"1"}), 5);
  {
    const at::NoGradGuard no_grad;
    for (const at::Tensor& tensor : adapters.parameters()) tensor.fill_(0.5);
  }
  adapters.apply();
  const auto before = everything(*model);
  EXPECT_THROW(model->clone(), c10::Error);
  auto [copy, copied] = adapters.clone(*model);
  EXPECT_EQ(everything(*model), before);
  EXPECT_EQ(everything(*copy), before);
  EXPECT_EQ(copied.layers(), adapters.layers());
  auto* layers = dynamic_cast<nn::SequentialImpl*>(copy.get());
  ASSERT_NE(layers, nullptr);
  EXPECT_TRUE(layers->forward(input()).equal(model->forward(input())));

  // Training the copy leaves the model alone.
  optim::Adam optimizer(copied.parameters(), optim::AdamOptions(0.05));
  layers->forward(input()).pow(2).sum().backward();
  optimizer.step();
  copied.apply();
  EXPECT_EQ(everything(*model), before);
  EXPECT_FALSE(layers->forward(input()).equal(model->forward(input())));
  copied.merge();
  EXPECT_THROW(copied.clone(*copy), Error);
}

TEST(Lora, AnExportIsSmall) {
  const auto dir = scratch();
  const auto layer = [] { return nn::Linear(nn::LinearOptions(1024, 1024).bias(false)); };
  nn::Sequential model(layer(), layer());
  auto saver = manager_in(dir);
  const auto whole = saver.save_checkpoint(*model);
  CheckpointManager manager(world().raw(), config_of(dir, {lora(8, {"*"})}));
  manager.load_checkpoint(*model);
  const auto alone = scratch() / "adapters.h5";
  manager.export_model(alone, *model, ModelExport::adapters);
  const auto bytes = [](const std::filesystem::path& path) {
    return static_cast<double>(std::filesystem::file_size(path));
  };
  EXPECT_LT(bytes(alone), 0.05 * bytes(whole));
  saver.close();
  manager.close();
}

}  // namespace
}  // namespace cairn::test
