#include <ATen/CPUGeneratorImpl.h>
#include <torch/optim/adam.h>
#include <torch/optim/schedulers/step_lr.h>
#include <torch/optim/sgd.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <stdexcept>

#include "torch/toy.hpp"

// What a checkpoint holds beside tensors: the context, the random state, the scheduler's state.
namespace cairn::test {
namespace {

namespace optim = torch::optim;

TEST(Context, ComesBackWhole) {
  auto manager = manager_in(scratch());
  Bag bag = bag_with(counting({3}));
  const double infinity = std::numeric_limits<double>::infinity();
  const std::map<std::string, double> metrics{
      {"loss", 0.1}, {"best", infinity}, {"worst", -infinity}};
  auto with_nan = metrics;
  with_nan["broken"] = std::nan("");
  const auto path =
      manager.save_checkpoint(bag, {.epoch = 4, .global_step = 12, .metrics = with_nan});
  auto context = manager.load_checkpoint(bag);
  EXPECT_EQ(context.path, path);
  EXPECT_EQ(context.epoch, 4U);
  EXPECT_EQ(context.global_step, 12U);
  EXPECT_TRUE(std::isnan(context.metrics.at("broken")));
  context.metrics.erase("broken");
  EXPECT_EQ(context.metrics, metrics);
  EXPECT_EQ(context.saved_world_size, world().size());
  EXPECT_TRUE(context.report.resharded.empty());
  EXPECT_EQ(context.format, "cairn");
  manager.close();
}

TEST(Context, RandomStateGoesOn) {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  generator.set_current_seed(17 + static_cast<unsigned>(world().rank()));
  at::randn({5});
  auto manager = manager_in(scratch());
  Bag bag = bag_with(counting({3}));
  manager.save_checkpoint(bag);
  const at::Tensor next = at::randn({33});
  generator.set_current_seed(99);
  EXPECT_TRUE(manager.load_checkpoint(bag).report.rng_restored);
  EXPECT_TRUE(at::randn({33}).equal(next));
  manager.close();
}

TEST(Context, AnotherNumberOfRanksKeepsItsOwnRandomState) {
  const auto dir = scratch();
  auto manager = manager_in(dir);
  const Bag saved = bag_with(counting({3}));
  manager.save_checkpoint(saved);
  // Every rank on its own is a trainer of one rank.
  Config config;
  config.source = LocalSource{dir};
  CheckpointManager alone(MPI_COMM_SELF, config);
  Bag loaded = bag_with(counting({3}, 9));
  const at::Tensor next = at::randn({33});
  const auto context = alone.load_checkpoint(loaded);
  EXPECT_EQ(bytes_of(loaded), bytes_of(saved));
  EXPECT_EQ(context.saved_world_size, world().size());
  EXPECT_TRUE(context.report.resharded.empty()) << "whole here, and whole when it was saved";
  EXPECT_EQ(context.report.rng_restored, world().size() == 1);
  EXPECT_EQ(at::randn({33}).equal(next), world().size() == 1);
  alone.close();
  manager.close();
}

/// Parameters `rows` and `flat`, parts of tensors [24, 6], and `whole`, as the ranks of `comm` hold
/// them; `rows_dim`: along which `rows` is divided.
class Divided {
 public:
  explicit Divided(MPI_Comm comm, std::size_t rows_dim = 0) {
    MPI_Comm_rank(comm, &rank_);
    MPI_Comm_size(comm, &ranks_);
    rows_ = Placement::split({24, 6}, rows_dim, ranks_, rank_);
    flat_ = Placement::flat_split({24, 6}, ranks_, rank_);
    bag_.register_parameter("rows", counting(sizes(rows_.box.count), 1 + rank_));
    bag_.register_parameter("flat", counting(sizes(flat_.box.count), 7 + rank_));
    bag_.register_parameter("whole", counting({24, 6}));
  }

  ManagerOptions options() const {
    ManagerOptions options;
    options.placement = [*this](const std::string& name, const at::Tensor&) {
      return name == "model/rows"   ? rows_
             : name == "model/flat" ? flat_
                                    : Placement::replicated({24, 6});
    };
    return options;
  }

  Bag bag_;

 private:
  static std::vector<std::int64_t> sizes(const Shape& shape) {
    return {shape.begin(), shape.end()};
  }

  int rank_ = 0;
  int ranks_ = 1;
  Placement rows_;
  Placement flat_;
};

std::vector<std::string> resharded(MPI_Comm comm, const std::filesystem::path& dir,
                                   std::size_t rows_dim = 0) {
  Divided divided(comm, rows_dim);
  Config config;
  config.source = LocalSource{dir};
  CheckpointManager manager(comm, config, divided.options());
  const auto context = manager.load_checkpoint(divided.bag_);
  EXPECT_EQ(context.report.loaded.size(), 3U);
  manager.close();
  return context.report.resharded;
}

TEST(Context, WhatIsDividedAnewIsToldByName) {
  using Names = std::vector<std::string>;
  const auto dir = scratch();
  {
    Divided divided(world().raw());
    auto manager = manager_in(dir, divided.options());
    manager.save_checkpoint(divided.bag_);
    manager.close();
  }
  const bool many = world().size() > 1;
  EXPECT_EQ(resharded(world().raw(), dir), Names{}) << "as it was saved";
  EXPECT_EQ(resharded(world().raw(), dir, 1), many ? Names{"model/rows"} : Names{})
      << "on the same ranks";
  EXPECT_EQ(resharded(MPI_COMM_SELF, dir), many ? (Names{"model/flat", "model/rows"}) : Names{})
      << "on one rank";
}

/// A checkpoint of `bag_with(counting({3}))` with documents and blob of the test's own.
std::filesystem::path save_by_hand(const std::map<std::string, std::string>& documents,
                                   const std::vector<std::byte>& random) {
  const auto path = checkpoint_path(scratch(), 1);
  const at::Tensor weight = counting({3});
  StateView state;
  state.tensors.push_back({"model/weight", DType::f32, Placement::replicated({3}),
                           static_cast<const std::byte*>(weight.data_ptr())});
  state.documents = documents;
  if (!random.empty()) state.rank_blobs["rng"] = random;
  state.step = 1;
  Saver(world(), {}).save(path, state);
  return path;
}

TEST(Context, ForeignCheckpointsLoadWithWhatTheyHave) {
  auto manager = manager_in(scratch());
  manager.set_source({save_by_hand({}, {})});
  Bag bag = bag_with(counting({3}, 9));
  const auto context = manager.load_checkpoint(bag);
  EXPECT_TRUE(bag.named_parameters()["weight"].equal(counting({3})));
  EXPECT_EQ(context.global_step, 1U);
  EXPECT_TRUE(context.metrics.empty());
  EXPECT_FALSE(context.report.rng_restored);
  manager.close();
}

TEST(Context, DamagedDocumentsChangeNothing) {
  const std::vector<std::pair<std::string, std::string>> damaged{
      {"context", "{"},
      {"context", R"({"epoch": "four", "global_step": 1, "metrics": {}})"},
      {"model", R"({"aliases": 3})"},
      {"model", R"({"quantized": {"weight": {"dtype": 7}}})"},
      {"optimizer", R"({"param_groups": [{}]})"}};
  for (const auto& [name, text] : damaged) {
    SCOPED_TRACE(text);
    auto manager = manager_in(scratch());
    manager.set_source({save_by_hand({{name, text}}, {})});
    const bool quantised = text.find("quantized") != std::string::npos;
    Bag bag = bag_with(quantised ? at::quantize_per_tensor(counting({3}), 1, 0, at::kQInt8)
                                 : counting({3}, 9));
    const auto before = bytes_of(bag);
    const auto what = expect_same_error(Errc::corrupt, [&] { manager.load_checkpoint(bag); });
    EXPECT_NE(what.find("'" + name + "'"), std::string::npos) << what;
    EXPECT_EQ(bytes_of(bag), before);
    manager.close();
  }
}

TEST(Context, DamagedRandomStateChangesNothing) {
  auto manager = manager_in(scratch());
  manager.set_source({save_by_hand({}, std::vector<std::byte>(16))});
  Bag bag = bag_with(counting({3}, 9));
  const auto before = bytes_of(bag);
  expect_same_error(Errc::corrupt, [&] { manager.load_checkpoint(bag); });
  EXPECT_EQ(bytes_of(bag), before);
  manager.close();
}

Config config_of_run(const std::filesystem::path& root, const std::string& id) {
  Config config;
  config.save.root = root;
  config.lineage.resume_run_id = id;
  return config;
}

/// The context of what is saved at `step` by a manager that has loaded, as others load it.
CheckpointContext saved_by(CheckpointManager& manager, Bag& bag, std::uint64_t step) {
  const auto path = manager.save_checkpoint(bag, {.global_step = step});
  manager.set_source(LocalSource{path});
  return manager.load_checkpoint(bag);
}

TEST(Runs, AForkIsANewRunThatGoesOnCounting) {
  const auto root = scratch();
  Config first = config_of_run(root, "first");
  first.save.dir = root / "first";
  CheckpointManager parent(world().raw(), first);
  Bag bag = bag_with(counting({3}));
  parent.save_checkpoint(bag, {.epoch = 4, .global_step = 12});

  Config config;
  config.save.root = root;
  config.source = RunSource{root, "first", /*fork=*/true};
  CheckpointManager fork(world().raw(), config);
  const auto context = fork.load_checkpoint(bag);
  EXPECT_EQ(context.epoch, 4U);
  EXPECT_EQ(context.global_step, 12U);
  EXPECT_EQ(context.lineage.run_id, "first");
  EXPECT_EQ(context.run.run_id.size(), 36U);
  EXPECT_EQ(context.run.parent_run_id, "first");
  EXPECT_EQ(context.run.parent_uuid, context.lineage.uuid);
  EXPECT_TRUE(context.run.fork);
  EXPECT_EQ(fork.config().save.dir, root / context.run.run_id);
  std::string of_root = context.run.run_id;
  world().broadcast(of_root);
  EXPECT_EQ(context.run.run_id, of_root);

  const auto saved = saved_by(fork, bag, 13);
  EXPECT_EQ(saved.path.parent_path(), root / of_root);
  EXPECT_EQ(saved.lineage.run_id, of_root);
  EXPECT_EQ(saved.lineage.parent_run_id, "first");
  EXPECT_EQ(saved.lineage.parent_uuid, context.lineage.uuid);
  EXPECT_TRUE(saved.lineage.fork);
  parent.close();
  fork.close();
}

TEST(Runs, AForkNeedsADirectoryOfItsOwn) {
  const auto root = scratch();
  Config config = config_of_run(root, "first");
  config.save.dir = root / "first";
  CheckpointManager parent(world().raw(), config);
  Bag bag = bag_with(counting({3}));
  parent.save_checkpoint(bag);
  config.lineage.resume_run_id.clear();
  config.source = RunSource{root, "first", /*fork=*/true};
  CheckpointManager fork(world().raw(), config);
  Bag other = bag_with(counting({3}, 9));
  const auto text = expect_same_error(Errc::usage, [&] { fork.load_checkpoint(other); });
  EXPECT_NE(text.find("forked"), std::string::npos) << text;
  EXPECT_TRUE(other.named_parameters()["weight"].equal(counting({3}, 9)));
  parent.close();
  fork.close();
}

TEST(Runs, AResumedRunKeepsItsIdDirectoryAndParent) {
  const auto root = scratch();
  // Run "second" begins with a file of run "first", as the configuration says.
  Config config = config_of_run(root, "second");
  config.lineage.parent_run_id = "first";
  config.source = LocalSource{save_by_hand({}, {})};
  CheckpointManager begins(world().raw(), config);
  Bag bag = bag_with(counting({3}));
  const auto begun = begins.load_checkpoint(bag);
  EXPECT_EQ(begun.run.run_id, "second");
  EXPECT_EQ(begun.run.parent_run_id, "first");
  EXPECT_TRUE(begun.run.fork);
  const auto path = begins.save_checkpoint(bag, {.global_step = 5});
  EXPECT_EQ(path.parent_path(), root / "second");

  Config resumed;
  resumed.save.root = root;
  resumed.source = RunSource{root, "second"};
  CheckpointManager goes_on(world().raw(), resumed);
  EXPECT_EQ(goes_on.config().save.dir, root / "second");
  const auto context = goes_on.load_checkpoint(bag);
  EXPECT_EQ(context.path, path);
  const auto saved = saved_by(goes_on, bag, 6);
  EXPECT_EQ(saved.lineage.run_id, "second");
  EXPECT_EQ(saved.lineage.parent_run_id, "first");
  EXPECT_EQ(saved.lineage.parent_uuid, context.lineage.uuid);
  EXPECT_TRUE(saved.lineage.fork);
  begins.close();
  goes_on.close();
}

TEST(Runs, ANewRunHasADirectoryBelowTheRoot) {
  Config config;
  config.save.root = scratch();
  CheckpointManager manager(world().raw(), config);
  const auto path = manager.save_checkpoint(bag_with(counting({3})), {.global_step = 1});
  EXPECT_EQ(path.parent_path().parent_path(), config.save.root);
  EXPECT_EQ(path.parent_path().filename().string().size(), 36U);
  manager.close();
}

TEST(Schedulers, StepLrGoesOn) {
  auto manager = manager_in(scratch());
  const auto rates = [](optim::Optimizer& optimizer, optim::LRScheduler& scheduler) {
    std::vector<double> all;
    for (int i = 0; i < 7; ++i) {
      scheduler.step();
      all.push_back(optimizer.param_groups()[0].options().get_lr());
    }
    return all;
  };
  Model model(1);
  optim::SGD optimizer(one_group(model), optim::SGDOptions(1));
  optim::StepLR scheduler(optimizer, 3, 0.3);
  for (int i = 0; i < 4; ++i) scheduler.step();
  manager.save_checkpoint(model, optimizer, scheduler);
  const auto expected = rates(optimizer, scheduler);

  optim::SGD other(one_group(model), optim::SGDOptions(9));
  optim::StepLR resumed(other, 3, 0.3);
  manager.load_checkpoint(model, other, resumed);
  EXPECT_EQ(rates(other, resumed), expected);
  manager.close();
}

struct Warmup : Scheduler {
  std::string state() const override { return std::to_string(ticks); }
  void load(const std::string& state) override {
    ticks = std::stoi(state);
    if (refuses) {
      refuses = false;  // it takes its old state back
      throw std::invalid_argument("no such tick");
    }
  }
  int ticks = 0;
  bool refuses = false;
};

TEST(Schedulers, TheUsersOwnMayRefuse) {
  auto manager = manager_in(scratch());
  Model model(1);
  optim::SGD optimizer(one_group(model), optim::SGDOptions(1));
  Warmup warmup;
  warmup.ticks = 12;
  manager.save_checkpoint(model, optimizer, warmup);

  Model other(2);
  optim::SGD loaded(one_group(other), optim::SGDOptions(3));
  Warmup refusing;
  refusing.ticks = 1;
  refusing.refuses = world().rank() == world().size() - 1;
  const auto before = bytes_of(other);
  expect_same_error(Errc::internal, [&] { manager.load_checkpoint(other, loaded, refusing); });
  EXPECT_EQ(refusing.ticks, 1);
  EXPECT_EQ(bytes_of(other), before);
  EXPECT_EQ(loaded.param_groups()[0].options().get_lr(), 3);

  optim::StepLR torch_scheduler(loaded, 3);
  expect_same_error(Errc::mismatch,
                    [&] { manager.load_checkpoint(other, loaded, torch_scheduler); });
  manager.load_checkpoint(other, loaded, refusing);
  EXPECT_EQ(refusing.ticks, 12);
  EXPECT_EQ(bytes_of(other), bytes_of(model));

  manager.save_checkpoint(model, optimizer, {.global_step = 1});
  expect_same_error(Errc::mismatch, [&] { manager.load_checkpoint(other, loaded, refusing); });
  manager.close();
}

TEST(Schedulers, DamagedTensorsChangeNothing) {
  auto manager = manager_in(scratch());
  Model model(1);
  optim::Adam optimizer(one_group(model), optim::AdamOptions(0.01));
  train(model, optimizer, 2);
  Warmup warmup;
  warmup.ticks = 12;
  const auto path = manager.save_checkpoint(model, optimizer, warmup);
  const Manifest manifest = open_checkpoint(world(), path);
  if (world().is_root()) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const auto* last = manifest.find("optimizer/bias/exp_avg_sq");
    file.seekp(static_cast<std::streamoff>(last->extents.at(0).offset));
    file.put('\x7f');
  }
  Model other(2);
  optim::Adam loaded(one_group(other), optim::AdamOptions(0.5));
  Warmup keeping;
  keeping.ticks = 1;
  const auto before = bytes_of(other);
  expect_same_error(Errc::corrupt, [&] { manager.load_checkpoint(other, loaded, keeping); });
  EXPECT_EQ(bytes_of(other), before);
  EXPECT_TRUE(loaded.state().empty());
  EXPECT_EQ(loaded.param_groups()[0].options().get_lr(), 0.5);
  EXPECT_EQ(keeping.ticks, 1);
  manager.close();
}

TEST(Manager, FindsTheNewestCheckpoint) {
  const auto dir = scratch();
  auto manager = manager_in(dir);
  EXPECT_EQ(manager.newest_checkpoint(), std::nullopt);
  Bag bag = bag_with(counting({3}));
  expect_same_error(Errc::not_found, [&] { manager.load_checkpoint(bag); });
  const auto first = manager.save_checkpoint(bag, {.global_step = 5});
  const auto second = manager.save_checkpoint(bag, {.global_step = 30});
  EXPECT_EQ(manager.newest_checkpoint(), second);
  EXPECT_EQ(manager.load_checkpoint(bag).path, second);
  manager.set_source({first});
  EXPECT_EQ(manager.load_checkpoint(bag).global_step, 5U);
  manager.close();
}

TEST(Manager, WithoutDirectoriesIsAUsageError) {
  CheckpointManager manager(world().raw(), Config{});
  Bag bag = bag_with(counting({3}));
  expect_same_error(Errc::usage, [&] { manager.load_checkpoint(bag); });
  expect_same_error(Errc::usage, [&] { manager.save_checkpoint(bag); });
  manager.close();
}

}  // namespace
}  // namespace cairn::test
