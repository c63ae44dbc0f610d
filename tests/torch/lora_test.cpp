#include <torch/nn/modules/container/sequential.h>
#include <torch/optim/adam.h>

#include <algorithm>

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
