#include <torch/optim/adam.h>

#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>

#include "torch/toy.hpp"

// The strategies of checkpoint.loading, and that a load which fails changes nothing on any rank.
namespace cairn::test {
namespace {

namespace optim = torch::optim;

/// `stem` of 4 x 3, and a head whose width may change.
struct Net : Bag {
  explicit Net(double first, std::int64_t classes = 5, const std::string& head_name = "head") {
    stem = register_module("stem", std::make_shared<Bag>());
    head = register_module(head_name, std::make_shared<Bag>());
    stem->register_parameter("weight", counting({4, 3}, first));
    stem->register_buffer("count", at::full({}, first, at::kLong));
    head->register_parameter("weight", counting({classes, 4}, first + 50));
  }
  std::shared_ptr<Bag> stem, head;
};

std::vector<bool> trained(const torch::nn::Module& model) {
  std::vector<bool> flags;
  for (const auto& item : model.named_parameters()) flags.push_back(item.value().requires_grad());
  return flags;
}

CheckpointManager loading_from(const std::filesystem::path& dir, const LoadingConfig& loading,
                               ManagerOptions options = {}) {
  Config config;
  config.source = LocalSource{dir};
  config.loading = loading;
  return CheckpointManager(world().raw(), config, std::move(options));
}

/// A run directory with one checkpoint of `model`.
std::filesystem::path saved(const torch::nn::Module& model) {
  const auto dir = scratch();
  auto manager = manager_in(dir);
  manager.save_checkpoint(model, {.epoch = 4, .global_step = 12, .metrics = {{"loss", 0.5}}});
  manager.close();
  return dir;
}

LoadingConfig of_type(LoadingType type) {
  LoadingConfig loading;
  loading.type = type;
  loading.strict = type != LoadingType::transfer_learning;
  return loading;
}

/// The context's report, after checking that all ranks have the same.
LoadReport same_report(const CheckpointContext& context) {
  const std::string mine = to_json(context.report);
  std::string of_root = mine;
  world().broadcast(of_root);
  EXPECT_EQ(mine, of_root);
  return context.report;
}

TEST(Strategies, ColdStartTakesWeightsAndBeginsAtZero) {
  const auto dir = scratch();
  auto saver = manager_in(dir);
  Model model(1);
  optim::Adam optimizer(one_group(model), optim::AdamOptions(0.01));
  train(model, optimizer, 2);
  saver.save_checkpoint(model, optimizer,
                        {.epoch = 4, .global_step = 12, .metrics = {{"loss", 0.5}}});
  auto manager = loading_from(dir, of_type(LoadingType::cold_start));
  Model other(2);
  optim::Adam fresh(one_group(other), optim::AdamOptions(0.5));
  const auto context = manager.load_checkpoint(other, fresh);
  EXPECT_EQ(bytes_of(other), bytes_of(model));
  EXPECT_EQ(context.epoch, 0U);
  EXPECT_EQ(context.global_step, 0U);
  EXPECT_TRUE(context.metrics.empty());
  EXPECT_TRUE(fresh.state().empty());
  EXPECT_EQ(fresh.param_groups()[0].options().get_lr(), 0.5);
  const LoadReport report = same_report(context);
  EXPECT_FALSE(report.rng_restored);
  EXPECT_EQ(report.loaded.size(), 3U);
  EXPECT_TRUE(report.unexpected.empty());
  EXPECT_EQ(report.fraction_matched, 1);
  saver.close();
  manager.close();
}

TEST(Strategies, ColdStartKeepsResetLayers) {
  const Net net(1);
  auto loading = of_type(LoadingType::cold_start);
  loading.reset_layers = {"head"};
  auto manager = loading_from(saved(net), loading);
  Net other(2);
  const auto head = bytes_of(*other.head);
  const LoadReport report = same_report(manager.load_checkpoint(other));
  EXPECT_EQ(bytes_of(*other.stem), bytes_of(*net.stem));
  EXPECT_EQ(bytes_of(*other.head), head);
  ASSERT_EQ(report.skipped.size(), 1U);
  EXPECT_EQ(report.skipped[0].name, "model/head.weight");
  manager.close();

  loading.reset_layers = {"haed"};
  auto wrong = loading_from(saved(net), loading);
  const auto before = bytes_of(other);
  const auto text = expect_same_error(Errc::not_found, [&] { wrong.load_checkpoint(other); });
  EXPECT_NE(text.find("'head'"), std::string::npos) << text;
  EXPECT_EQ(bytes_of(other), before);
  wrong.close();
}

TEST(Strategies, WeightsOnlyKeepsProgressAndMayTakeAPart) {
  const Net net(1);
  const auto dir = saved(net);
  auto strict = loading_from(dir, of_type(LoadingType::weights_only));
  Net other(2);
  other.stem->register_parameter("more", counting({2}, 7));
  const auto before = bytes_of(other);
  expect_same_error(Errc::mismatch, [&] { strict.load_checkpoint(other); });
  EXPECT_EQ(bytes_of(other), before);
  auto loading = of_type(LoadingType::weights_only);
  loading.strict = false;
  auto lenient = loading_from(dir, loading);
  const auto context = lenient.load_checkpoint(other);
  EXPECT_EQ(context.global_step, 12U);
  EXPECT_EQ(context.epoch, 4U);
  const LoadReport report = same_report(context);
  EXPECT_EQ(report.missing, std::vector<std::string>{"model/stem.more"});
  EXPECT_EQ(report.fraction_matched, 0.75);
  EXPECT_EQ(bytes_of(*other.head), bytes_of(*net.head));
  EXPECT_TRUE(other.stem->named_parameters()["more"].equal(counting({2}, 7)));
  strict.close();
  lenient.close();
}

TEST(Strategies, TransferTakesRenamedTensorsThatFitAndFreezesThem) {
  const Net net(1, 5, "old_head");
  auto loading = of_type(LoadingType::transfer_learning);
  loading.rename = {{"^old_(.*)", "$1", true}};
  loading.freeze_loaded = true;
  auto manager = loading_from(saved(net), loading);
  Net other(2, 7);
  const auto head = bytes_of(*other.head);
  const LoadReport report = same_report(manager.load_checkpoint(other));
  EXPECT_EQ(bytes_of(*other.stem), bytes_of(*net.stem));
  EXPECT_EQ(bytes_of(*other.head), head);
  ASSERT_EQ(report.mismatched.size(), 1U);
  EXPECT_EQ(report.mismatched[0].in_checkpoint, (Shape{5, 4}));
  EXPECT_EQ(report.mismatched[0].in_memory, (Shape{7, 4}));
  EXPECT_EQ(trained(other), (std::vector<bool>{false, true}));
  manager.close();
}

TEST(Strategies, TooFewMatchesChangeNothing) {
  const Net net(1);
  auto loading = of_type(LoadingType::transfer_learning);
  loading.min_match = 0.7;
  loading.freeze_loaded = true;
  auto manager = loading_from(saved(net), loading);
  Net other(2, 7);
  const auto before = bytes_of(other);
  const auto text = expect_same_error(Errc::mismatch, [&] { manager.load_checkpoint(other); });
  EXPECT_NE(text.find("min_match"), std::string::npos) << text;
  EXPECT_EQ(bytes_of(other), before);
  EXPECT_EQ(trained(other), (std::vector<bool>{true, true}));
  manager.close();
}

TEST(Strategies, WarmStartFollowsRenamesIntoTheOptimizer) {
  const auto dir = scratch();
  auto saver = manager_in(dir);
  Bag wrapped;
  const auto inner = wrapped.register_module("module", std::make_shared<Bag>());
  const at::Tensor weight = inner->register_parameter("weight", counting({3}));
  optim::Adam optimizer(std::vector<at::Tensor>{weight}, optim::AdamOptions(0.01));
  weight.mutable_grad() = counting({3}, 1);
  optimizer.step();
  saver.save_checkpoint(wrapped, optimizer, {.global_step = 3});

  auto loading = of_type(LoadingType::warm_start);
  loading.rename = {{"module.", ""}};
  auto manager = loading_from(dir, loading);
  Bag bare = bag_with(counting({3}, 9));
  optim::Adam resumed(bare.parameters(), optim::AdamOptions(0.5));
  const auto context = manager.load_checkpoint(bare, resumed);
  EXPECT_EQ(bytes_of(bare), bytes_of(wrapped));
  EXPECT_EQ(context.global_step, 3U);
  ASSERT_EQ(resumed.state().size(), 1U);
  const auto& state = static_cast<optim::AdamParamState&>(*resumed.state().begin()->second);
  const auto& then = static_cast<optim::AdamParamState&>(*optimizer.state().begin()->second);
  EXPECT_TRUE(state.exp_avg().equal(then.exp_avg()));
  EXPECT_EQ(state.step(), 1);
  saver.close();
  manager.close();
}

TEST(Strategies, DtypesAreConvertedOnlyWhenAsked) {
  const auto dir = saved(bag_with(counting({3}, 0.5).to(at::kDouble)));
  Bag bag = bag_with(counting({3}, 9));
  const auto before = bytes_of(bag);
  auto plain = loading_from(dir, of_type(LoadingType::weights_only));
  const auto text = expect_same_error(Errc::mismatch, [&] { plain.load_checkpoint(bag); });
  EXPECT_NE(text.find("checkpoint.loading.cast"), std::string::npos) << text;
  EXPECT_EQ(bytes_of(bag), before);
  auto loading = of_type(LoadingType::weights_only);
  loading.cast = true;
  auto casting = loading_from(dir, loading);
  const LoadReport report = same_report(casting.load_checkpoint(bag));
  EXPECT_EQ(report.cast, (std::vector<TensorCast>{{"model/weight", DType::f64, DType::f32}}));
  EXPECT_TRUE(bag.named_parameters()["weight"].equal(counting({3}, 0.5)));
  plain.close();
  casting.close();
}

TEST(Strategies, AFailureOnOneRankChangesNothingOnAny) {
  const bool last = world().rank() == world().size() - 1;
  const auto dir = saved(Net(1));
  Net other(2);
  const auto before = bytes_of(other);
  for (const auto type : {LoadingType::warm_start, LoadingType::cold_start,
                          LoadingType::weights_only, LoadingType::transfer_learning}) {
    ManagerOptions options;
    options.placement = [&](const std::string& name, const at::Tensor& tensor) {
      if (last && name == "model/head.weight") throw std::runtime_error("no such place");
      return Placement::replicated({tensor.sizes().begin(), tensor.sizes().end()});
    };
    auto manager = loading_from(dir, of_type(type), options);
    expect_same_error(Errc::internal, [&] { manager.load_checkpoint(other); });
    EXPECT_EQ(bytes_of(other), before);
    manager.close();
  }
  // A model that differs on one rank.
  auto manager = loading_from(dir, of_type(LoadingType::cold_start));
  Net different(2, last ? 7 : 5);
  const auto unchanged = bytes_of(different);
  expect_same_error(Errc::mismatch, [&] { manager.load_checkpoint(different); });
  EXPECT_EQ(bytes_of(different), unchanged);
  manager.close();
}

TEST(Strategies, SettingsMustAgreeOverTheRanks) {
  if (world().size() == 1) return;
  const auto dir = saved(Net(1));
  const std::vector<std::function<void(Config&)>> differences{
      [](Config& config) { config.loading->reset_layers = {"head"}; },
      [](Config& config) { config.loading->reset_progress = true; },
      [](Config& config) { config.modifiers = {FreezeModifier{{"head"}}}; },
      [](Config& config) { config.save.every_n_steps = 3; },
      [](Config& config) { config.pipeline.fallback = false; }};
  for (const auto& change : differences) {
    Config config;
    config.source = LocalSource{dir};
    config.loading = of_type(LoadingType::weights_only);
    if (world().is_root()) change(config);
    expect_same_error(Errc::mismatch,
                      [&] { const CheckpointManager manager(world().raw(), config); });
  }
  auto manager = loading_from(dir, of_type(LoadingType::weights_only));
  if (world().is_root()) manager.set_source(LocalSource{dir / "last"});
  Net other(2);
  const auto before = bytes_of(other);
  const auto text = expect_same_error(Errc::mismatch, [&] { manager.load_checkpoint(other); });
  EXPECT_NE(text.find("checkpoint.source"), std::string::npos) << text;
  EXPECT_EQ(bytes_of(other), before);
  manager.close();
}

TEST(Strategies, SettingsOfAProgramAreCheckedLikeThoseOfAFile) {
  const std::vector<std::function<void(Config&)>> wrong{
      [](Config& config) { config.modifiers = {FreezeModifier{}}; },
      [](Config& config) { config.modifiers = {ResetModifier{}}; },
      [](Config& config) { config.modifiers = {CastModifier{DType::i32}}; },
      [](Config& config) { config.loading = LoadingConfig{.min_match = 1.5}; },
      [](Config& config) {
        config.loading = LoadingConfig{.rename = {{"(", "", true}}};
      },
      [](Config& config) { config.pipeline.timeout = std::chrono::milliseconds::max(); },
      [](Config& config) { config.pipeline.max_retries = -1; },
      [](Config& config) { config.save.every_minutes = -1; },
      [](Config& config) { config.save.mpio.deflate = 10; }};
  for (const auto& change : wrong) {
    Config config;
    change(config);
    expect_same_error(Errc::usage, [&] { const CheckpointManager manager(world().raw(), config); });
  }
}

TEST(Strategies, TheHomeDirectoryIsMeantWhereFilesAreSaved) {
  const auto home = scratch();
  const std::string before = std::getenv("HOME") == nullptr ? "" : std::getenv("HOME");
  setenv("HOME", home.c_str(), 1);
  Config config;
  config.save.dir = "~/runs/a";
  CheckpointManager manager(world().raw(), config);
  const auto path = manager.save_checkpoint(Net(1), {.global_step = 1});
  EXPECT_EQ(path, home / "runs/a/step-00000001.h5");
  EXPECT_EQ(manager.newest_checkpoint(), path);
  manager.close();
  setenv("HOME", before.c_str(), 1);
}

TEST(Strategies, TheReportTellsOfAllRanks) {
  // Each rank has a stage of its own and a part that no checkpoint has.
  const auto stage = [](double first) {
    Bag bag;
    bag.register_parameter("stage" + std::to_string(world().rank()), counting({3}, first));
    return bag;
  };
  const Bag net = stage(1);
  const auto dir = saved(net);
  Bag other = stage(2);
  other.register_parameter("new" + std::to_string(world().rank()), counting({2}));
  auto manager = loading_from(dir, of_type(LoadingType::transfer_learning));
  const auto context = manager.load_checkpoint(other);
  const LoadReport report = same_report(context);
  EXPECT_EQ(report.loaded.size(), static_cast<std::size_t>(world().size()));
  EXPECT_EQ(report.missing.size(), static_cast<std::size_t>(world().size()));
  EXPECT_EQ(report.fraction_matched, 0.5);
  EXPECT_TRUE(report.unexpected.empty());
  const auto json = nlohmann::json::parse(to_json(report));
  EXPECT_EQ(json.at("missing").at(0), "model/new0");
  manager.close();
}

TEST(Contexts, TellWhereACheckpointComesFrom) {
  const auto dir = scratch();
  auto first = manager_in(dir);
  Net net(1);
  first.save_checkpoint(net, {.global_step = 1});
  const auto loaded = first.load_checkpoint(net);
  EXPECT_EQ(loaded.lineage.parent_uuid, "");
  EXPECT_EQ(loaded.lineage.uuid.size(), 36U);
  first.save_checkpoint(net, {.global_step = 2});
  const auto continued = first.load_checkpoint(net);
  EXPECT_EQ(continued.lineage.run_id, loaded.lineage.run_id);
  EXPECT_EQ(continued.lineage.parent_uuid, loaded.lineage.uuid);
  EXPECT_NE(continued.lineage.uuid, loaded.lineage.uuid);

  // Weights alone make another run, whose parent is known.
  Config config;
  config.source = LocalSource{dir};
  config.save.dir = scratch();
  config.loading = of_type(LoadingType::cold_start);
  CheckpointManager second(world().raw(), config);
  second.load_checkpoint(net);
  second.save_checkpoint(net, {.global_step = 3});
  second.set_source(LocalSource{config.save.dir});
  const auto other = second.load_checkpoint(net);
  EXPECT_NE(other.lineage.run_id, loaded.lineage.run_id);
  EXPECT_EQ(other.lineage.parent_uuid, continued.lineage.uuid);
  std::string of_root = other.lineage.run_id;
  world().broadcast(of_root);
  EXPECT_EQ(other.lineage.run_id, of_root);
  first.close();
  second.close();
}

TEST(Contexts, TakeMetricsWhoseNamesAreNoText) {
  const auto dir = scratch();
  auto manager = manager_in(dir);
  Net net(1);
  manager.save_checkpoint(net, {.global_step = 1, .metrics = {{"loss\xff", 0.5}}});
  const auto metrics = manager.load_checkpoint(net).metrics;
  ASSERT_EQ(metrics.size(), 1U);
  EXPECT_EQ(metrics.begin()->first, "loss\uFFFD");
  EXPECT_EQ(metrics.begin()->second, 0.5);
  manager.close();
}

/// Its state is no text.
struct Binary : Scheduler {
  std::string state() const override { return "\xff"; }
  void load(const std::string&) override {}
};

TEST(Contexts, RefuseASchedulerWhoseStateIsNoText) {
  auto manager = manager_in(scratch());
  Model model(1);
  optim::Adam optimizer(one_group(model), optim::AdamOptions(0.01));
  Binary scheduler;
  expect_same_error(Errc::usage, [&] { manager.save_checkpoint(model, optimizer, scheduler); });
  manager.close();
}

TEST(Contexts, TraceEveryStageAndTheOneThatFailed) {
  const auto dir = saved(Net(1));
  auto manager = loading_from(dir, of_type(LoadingType::cold_start));
  Net net(2);
  const auto context = manager.load_checkpoint(net);
  const std::vector<std::string> names{"source",  "open", "check modifiers", "match",
                                       "compare", "move", "finish"};
  ASSERT_EQ(context.trace.size(), names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(context.trace[i].name, names[i]);
    EXPECT_EQ(context.trace[i].result, "completed");
  }
  // 4 x 3 and 5 x 4 floats and one integer on each rank.
  EXPECT_EQ(context.trace[5].bytes, (12 * 4 + 20 * 4 + 8) * static_cast<unsigned>(world().size()));
  const auto json = nlohmann::json::parse(to_json(context));
  EXPECT_EQ(json.at("trace").size(), names.size());
  const auto& used = json.at("config");
  EXPECT_EQ(used.at("checkpoint").at("source").at("path"), dir.string());
  EXPECT_EQ(used.at("checkpoint").at("loading").at("type"), "cold_start");
  EXPECT_EQ(used.at("pipeline").at("timeout"), 600);
  EXPECT_EQ(used.at("save").at("engine"), "direct");
  EXPECT_EQ(json.at("metadata").at("context").at("epoch"), 4);

  Net wrong(2, 7);
  expect_same_error(Errc::mismatch, [&] { manager.load_checkpoint(wrong); });
  EXPECT_EQ(manager.last_trace().size(), 4U);
  EXPECT_EQ(manager.last_trace().back().name, "match");
  EXPECT_EQ(manager.last_trace().back().result.substr(0, 7), "failed:");
  manager.close();
}

}  // namespace
}  // namespace cairn::test
