#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/schedulers/step_lr.h>
#include <torch/optim/sgd.h>

#include <cstring>
#include <fstream>

#include "checkpoint/convert.hpp"
#include "support/corpus.hpp"
#include "torch/toy.hpp"

// Trainers go on from what PyTorch and Lightning saved, as the configuration names it: no rename
// rules, no conversion.
namespace cairn::test {
namespace {

namespace nn = torch::nn;
namespace optim = torch::optim;

/// LibTorch's Sequential can't hold others.
struct Block : nn::Module {
  explicit Block(std::int64_t width) {
    register_module("0", nn::LayerNorm(nn::LayerNormOptions({width})));
    register_module("1", nn::Linear(width, width));
  }
};

struct Forecaster : nn::Module {
  Forecaster(std::int64_t in, std::int64_t width, std::int64_t out, int blocks) {
    encoder = register_module("encoder", nn::Linear(in, width));
    const auto processor = register_module("processor", std::make_shared<Bag>());
    for (int b = 0; b < blocks; ++b) {
      processor->register_module(std::to_string(b), std::make_shared<Block>(width));
    }
    decoder = register_module("decoder", nn::Linear(width, out));
    latlons = register_buffer("latlons", counting({4, 2}));
    const at::NoGradGuard no_grad;
    for (const at::Tensor& tensor : parameters()) tensor.fill_(-1);
  }
  nn::Linear encoder{nullptr}, decoder{nullptr};
  at::Tensor latlons;
};

CheckpointManager loading(const std::filesystem::path& path,
                          LoadingType type = LoadingType::warm_start) {
  Config config;
  config.source = LocalSource{path};
  config.loading = LoadingConfig{};
  config.loading->type = type;
  return CheckpointManager(world().raw(), config);
}

/// The values of a tensor of the file, as any program reads them.
at::Tensor in_file(const std::filesystem::path& path, const std::string& name,
                   at::IntArrayRef sizes) {
  const Manifest manifest = open_checkpoint(world(), path);
  at::Tensor tensor = at::empty(sizes, at::kFloat);
  const Shape shape(sizes.begin(), sizes.end());
  load_tensors(world(), manifest,
               std::vector<MutableTensorView>{{name, DType::f32, Placement::replicated(shape),
                                               static_cast<std::byte*>(tensor.data_ptr())}});
  return tensor;
}

template <class State>
const State& state_of(const optim::Optimizer& optimizer, const at::Tensor& parameter) {
  return static_cast<const State&>(
      *optimizer.state().at(c10::guts::to_string(parameter.unsafeGetTensorImpl())));
}

TEST(Foreign, ALightningCheckpointGoesOn) {
  CAIRN_IN_CORPUS(path, "lightning/1.13/anemoi-by_epoch-epoch_003-step_000030.ckpt");
  auto manager = loading(path);
  Forecaster model(6, 8, 5, 2);
  optim::AdamW optimizer(model.parameters(), optim::AdamWOptions(0.5));
  optim::StepLR scheduler(optimizer, 100, 0.5);
  const auto context = manager.load_checkpoint(model, optimizer, scheduler);
  EXPECT_EQ(context.epoch, 3U);
  EXPECT_EQ(context.global_step, 30U);
  EXPECT_EQ(context.report.fraction_matched, 1);
  EXPECT_TRUE(context.report.unexpected.empty());
  EXPECT_EQ(context.report.skipped.size(), 5U);  // of the wrapper: loss weights, normalizers
  EXPECT_TRUE(context.report.resharded.empty());
  EXPECT_TRUE(
      model.encoder->weight.equal(in_file(path, "state_dict/model.model.encoder.weight", {8, 6})));
  EXPECT_TRUE(model.latlons.equal(in_file(path, "state_dict/model.model.latlons", {4, 2})));
  const auto& options =
      static_cast<const optim::AdamWOptions&>(optimizer.param_groups()[0].options());
  EXPECT_EQ(options.lr(), 0.0006249993146110561);
  EXPECT_EQ(std::get<1>(options.betas()), 0.95);
  const auto& state = state_of<optim::AdamWParamState>(optimizer, model.decoder->weight);
  EXPECT_TRUE(state.exp_avg().equal(in_file(path, "optimizer_states/0/state/10/exp_avg", {5, 8})));
  EXPECT_EQ(state.step(),
            in_file(path, "optimizer_states/0/state/10/step", {}).item<std::int64_t>());
  EXPECT_GT(state.step(), 0);
  manager.close();
}

std::filesystem::path converted(const std::filesystem::path& path,
                                detail::TargetFormat to = detail::TargetFormat::cairn) {
  const bool lightning = to == detail::TargetFormat::lightning;
  const auto target = scratch() / (lightning ? "converted.ckpt" : "converted.h5");
  detail::ConvertOptions options;
  options.to = to;
  detail::convert_checkpoint(world(), open_checkpoint(world(), path), target, options);
  return target;
}

TEST(Foreign, AConvertedCheckpointGoesOnAsTheFileItself) {
  CAIRN_IN_CORPUS(path, "lightning/1.13/anemoi-by_epoch-epoch_003-step_000030.ckpt");
  const auto load = [](const std::filesystem::path& from, Forecaster& model,
                       optim::AdamW& optimizer, optim::StepLR& scheduler) {
    Config config;
    config.source = LocalSource{from};
    config.loading = LoadingConfig{.rescale_lr = RescaleRate::linear};
    CheckpointManager manager(world().raw(), config);
    const auto context = manager.load_checkpoint(model, optimizer, scheduler);
    manager.close();
    return context;
  };
  Forecaster model(6, 8, 5, 2), other(6, 8, 5, 2);
  optim::AdamW optimizer(model.parameters(), optim::AdamWOptions(0.5));
  optim::AdamW resumed(other.parameters(), optim::AdamWOptions(0.5));
  optim::StepLR scheduler(optimizer, 100, 0.5), going(resumed, 100, 0.5);
  const auto context = load(path, model, optimizer, scheduler);
  const auto again = load(converted(path), other, resumed, going);
  EXPECT_EQ(bytes_of(other), bytes_of(model));
  EXPECT_EQ(again.epoch, context.epoch);
  EXPECT_EQ(again.global_step, context.global_step);
  EXPECT_EQ(again.lineage.uuid, context.lineage.uuid);
  EXPECT_EQ(again.report.loaded.size(), context.report.loaded.size());
  EXPECT_EQ(again.report.skipped.size(), context.report.skipped.size());
  EXPECT_TRUE(again.report.unexpected.empty());
  // The ranks of the conversion are not those of the training, which nobody knows.
  EXPECT_EQ(again.saved_world_size, 0);
  EXPECT_TRUE(again.report.resharded.empty());
  const auto rate = [](const optim::Optimizer& any) {
    return any.param_groups()[0].options().get_lr();
  };
  EXPECT_EQ(rate(resumed), 0.0006249993146110561);
  const auto& state = state_of<optim::AdamWParamState>(resumed, other.decoder->weight);
  const auto& then = state_of<optim::AdamWParamState>(optimizer, model.decoder->weight);
  EXPECT_TRUE(state.exp_avg().equal(then.exp_avg()));
  EXPECT_TRUE(state.exp_avg_sq().equal(then.exp_avg_sq()));
  EXPECT_EQ(state.step(), then.step());
  for (int i = 0; i < 100; ++i) {
    scheduler.step();
    going.step();
  }
  EXPECT_EQ(rate(resumed), rate(optimizer));
}

TEST(Foreign, GroupsAreThoseOfTheFile) {
  CAIRN_IN_CORPUS(path, "training/2.6/adamw_two_groups.pt");
  auto manager = loading(path);
  Forecaster model(6, 8, 5, 2);
  std::vector<at::Tensor> matrices, others;
  for (const at::Tensor& tensor : model.parameters()) {
    (tensor.dim() == 2 ? matrices : others).push_back(tensor);
  }
  const auto groups = [](std::vector<at::Tensor> first, std::vector<at::Tensor> second) {
    return std::vector<optim::OptimizerParamGroup>{
        optim::OptimizerParamGroup(std::move(first)),
        optim::OptimizerParamGroup(std::move(second), std::make_unique<optim::AdamWOptions>(3))};
  };
  optim::AdamW optimizer(groups(matrices, others), optim::AdamWOptions(0.5));
  const auto context = manager.load_checkpoint(model, optimizer);
  EXPECT_EQ(context.epoch, 17U);
  EXPECT_EQ(context.global_step, 3U);
  EXPECT_EQ(optimizer.param_groups()[0].options().get_lr(), 0.00099115248173898);
  EXPECT_EQ(optimizer.param_groups()[1].options().get_lr(), 0.00019823758144750452);
  // Number 4 of the file: the first of its second group.
  EXPECT_TRUE(state_of<optim::AdamWParamState>(optimizer, model.encoder->bias)
                  .exp_avg_sq()
                  .equal(in_file(path, "optimizer_state_dict/state/4/exp_avg_sq", {8})));

  // Groups that are built otherwise, or another type, are refused.
  const auto before = bytes_of(model);
  optim::AdamW swapped(groups(others, matrices), optim::AdamWOptions(0.5));
  expect_same_error(Errc::mismatch, [&] { manager.load_checkpoint(model, swapped); });
  optim::SGD sgd(groups(matrices, others), optim::SGDOptions(0.5));
  Forecaster fresh(6, 8, 5, 2);
  expect_same_error(Errc::mismatch, [&] { manager.load_checkpoint(fresh, sgd); });
  EXPECT_EQ(bytes_of(model), before);
  manager.close();
}

TEST(Foreign, AStepSchedulerGoesOnAsInPython) {
  CAIRN_IN_CORPUS(path, "training/1.13/sgd_momentum_partial.pt");
  auto manager = loading(path);
  Forecaster model(6, 8, 5, 1);
  optim::SGD optimizer(model.parameters(), optim::SGDOptions(9).momentum(0.1));
  optim::StepLR scheduler(optimizer, 2, 0.5);  // as in the file, whose last step was number 3
  manager.load_checkpoint(model, optimizer, scheduler);
  std::vector<double> rates;
  for (int i = 0; i < 4; ++i) {
    scheduler.step();
    rates.push_back(optimizer.param_groups()[0].options().get_lr());
  }
  EXPECT_EQ(rates, (std::vector<double>{0.025, 0.025, 0.0125, 0.0125}));
  manager.close();
}

TEST(Foreign, ADistributedCheckpointGoesOn) {
  CAIRN_IN_CORPUS(path, "dcp/r2_fsdp2_adamw");
  auto manager = loading(path);
  Forecaster model(5, 7, 3, 1);
  std::vector<optim::OptimizerParamGroup> groups(2, optim::OptimizerParamGroup({}));
  groups[1].set_options(std::make_unique<optim::AdamWOptions>(3));
  for (const at::Tensor& tensor : model.parameters()) {
    groups[tensor.dim() == 2 ? 0 : 1].params().push_back(tensor);
  }
  optim::AdamW optimizer(groups, optim::AdamWOptions(0.5));
  const auto context = manager.load_checkpoint(model, optimizer);
  EXPECT_EQ(context.report.fraction_matched, 1);
  EXPECT_EQ(context.epoch, 2U);
  EXPECT_EQ(context.global_step, 2U);
  EXPECT_TRUE(model.decoder->weight.equal(in_file(path, "model.decoder.weight", {3, 7})));
  const auto& state = state_of<optim::AdamWParamState>(optimizer, model.decoder->weight);
  EXPECT_TRUE(
      state.exp_avg().equal(in_file(path, "optimizer.state.decoder.weight.exp_avg", {3, 7})));
  EXPECT_GT(state.step(), 0);
  for (const auto& group : optimizer.param_groups()) {
    EXPECT_EQ(group.options().get_lr(), 0.002);
  }
  manager.close();
}

/// The model of the corpus' files of DeepSpeed's stage 3.
struct Divided : nn::Module {
  Divided() {
    encoder = register_module("encoder", nn::Linear(5, 3));
    decoder = register_module("decoder", nn::Linear(nn::LinearOptions(3, 5).bias(false)));
    scale = register_parameter("scale", at::zeros({1}));
    auto frozen = register_module("frozen", std::make_shared<Bag>());
    frozen->register_parameter("w", at::zeros({3, 3}, at::kBFloat16), /*requires_grad=*/false);
    register_buffer("counter", at::zeros({1}));
  }
  nn::Linear encoder{nullptr}, decoder{nullptr};
  at::Tensor scale;
};

TEST(Foreign, DeepSpeedsTrainingGoesOn) {
  CAIRN_IN_CORPUS(path, "deepspeed/stage3_ws2");
  for (const auto& source :
       {path, converted(path), converted(path, detail::TargetFormat::lightning)}) {
    auto manager = loading(source);
    Divided model;
    std::vector<optim::OptimizerParamGroup> groups;
    groups.emplace_back(std::vector<at::Tensor>{model.encoder->weight, model.encoder->bias});
    // What is not trained DeepSpeed's groups do not have.
    const at::Tensor frozen = model.named_parameters()["frozen.w"];
    groups.emplace_back(std::vector<at::Tensor>{model.decoder->weight, model.scale, frozen});
    optim::AdamW optimizer(groups, optim::AdamWOptions(9));
    const auto context = manager.load_checkpoint(model, optimizer);
    EXPECT_EQ(context.report.fraction_matched, 1);
    EXPECT_TRUE(model.decoder->weight.equal(in_file(path, "fp32/decoder.weight", {5, 3})));
    for (const auto& group : optimizer.param_groups()) {
      EXPECT_EQ(group.options().get_lr(), 0.001);
      EXPECT_EQ(static_cast<const optim::AdamWOptions&>(group.options()).weight_decay(), 0.1);
    }
    const auto& state = state_of<optim::AdamWParamState>(optimizer, model.decoder->weight);
    EXPECT_TRUE(state.exp_avg().equal(in_file(path, "exp_avg/decoder.weight", {5, 3})));
    EXPECT_EQ(state.step(), 2);  // which DeepSpeed keeps once for a group
    model.decoder->weight.mutable_grad() = at::ones({5, 3});
    optimizer.step();
    EXPECT_EQ(state_of<optim::AdamWParamState>(optimizer, model.decoder->weight).step(), 3);
    manager.close();
  }
}

/// A checkpoint of one parameter with Adam's moments; `group` are the options of its group.
std::filesystem::path with_moments(const std::string& group) {
  const auto path = checkpoint_path(scratch(), 1);
  const at::Tensor values = counting({3});
  StateView state;
  for (const char* name :
       {"model/weight", "optimizer/weight/exp_avg", "optimizer/weight/exp_avg_sq"}) {
    state.tensors.push_back({name, DType::f32, Placement::replicated({3}),
                             static_cast<const std::byte*>(values.data_ptr())});
  }
  state.documents["optimizer"] =
      R"({"type": null, "param_groups": [{"params": ["weight"], "lr": 0.5, "betas": [0.5, 0.5], )"
      R"("eps": 0, "weight_decay": 0)" +
      group + "}]}";
  state.step = 1;
  Saver(world(), {}).save(path, state);
  return path;
}

TEST(Foreign, AdamIsToldFromItsRelativesByItsOptions) {
  const auto load = [](const std::string& group) {
    auto manager = loading(with_moments(group));
    Bag bag = bag_with(counting({3}, 9));
    optim::Adam optimizer(bag.parameters(), optim::AdamOptions(9).amsgrad(true));
    manager.load_checkpoint(bag, optimizer);
    manager.close();
    EXPECT_FALSE(
        static_cast<const optim::AdamOptions&>(optimizer.param_groups()[0].options()).amsgrad());
    return state_of<optim::AdamParamState>(optimizer, bag.parameters()[0]).step();
  };
  EXPECT_EQ(load(R"(, "amsgrad": false, "step": 4)"), 4);
  EXPECT_EQ(load(R"(, "bias_correction": true, "step": 5)"), 5) << "DeepSpeed's own";
  for (const char* other : {R"(, "step": 4)",                                              // RAdam
                            R"(, "bias_correction": true, "max_coeff": 10, "step": 4)",    // LAMB
                            R"(, "bias_correction": false, "step": 4)",                    //
                            R"(, "amsgrad": false, "bias_correction": false, "step": 4)",  //
                            R"(, "amsgrad": false, "maximize": true, "step": 4)",          //
                            R"(, "amsgrad": false, "step": 0)",  // it has moments, and was stepped
                            R"(, "amsgrad": false)"}) {
    expect_same_error(Errc::mismatch, [&] { load(other); });
  }
}

TEST(Foreign, WeightsOfAWrappedModel) {
  // "module." is what PyTorch's DistributedDataParallel puts before every name.
  const auto path = scratch() / "model.safetensors";
  const std::string header =
      R"({"module.weight":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},)"
      R"("step":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}})";
  const std::uint64_t length = header.size();
  const float values[4] = {5, 6, 7, 8};
  if (world().is_root()) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), sizeof(length));
    file << header;
    file.write(reinterpret_cast<const char*>(values), sizeof(values));
  }
  world().all_equal(0);
  auto manager = loading(path, LoadingType::cold_start);
  Bag bag = bag_with(counting({3}, 50));
  const auto context = manager.load_checkpoint(bag);
  EXPECT_TRUE(bag.named_parameters()["weight"].equal(counting({3}, 5)));
  ASSERT_EQ(context.report.skipped.size(), 1U);
  EXPECT_EQ(context.report.skipped[0].name, "model/step");
  ASSERT_EQ(context.warnings.size(), 1U);
  EXPECT_NE(context.warnings[0].find("'module.'"), std::string::npos);

  // A warm start of a trainer has to find the optimizer's state.
  auto warm = loading(path);
  optim::SGD optimizer(bag.parameters(), optim::SGDOptions(1));
  expect_same_error(Errc::mismatch, [&] { warm.load_checkpoint(bag, optimizer); });
  manager.close();
  warm.close();
}

}  // namespace
}  // namespace cairn::test
