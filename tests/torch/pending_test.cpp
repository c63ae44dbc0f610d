#include <atomic>
#include <fstream>
#include <thread>

#include "torch/toy.hpp"

// Loads in two parts, and the time that a load may take.
namespace cairn::test {
namespace {

/// A source that is not there before `released`. Rank 0 asks it, on a thread of its own.
struct Held {
  std::filesystem::path path;
  std::atomic<bool> released{false};
  std::atomic<int> calls{0};
  std::thread::id caller;

  std::filesystem::path fetch(const FetchContext& context) {
    ++calls;
    caller = std::this_thread::get_id();
    while (!released && std::chrono::steady_clock::now() < context.deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return path;
  }
};

Held& held() {
  static Held the_source;
  static const bool known = [] {
    register_source_type("held", [](const CustomSource&, const FetchContext& context) {
      return the_source.fetch(context);
    });
    return true;
  }();
  static_cast<void>(known);
  return the_source;
}

/// A manager whose source is the held one, with a checkpoint of `counting({3})`, step 12.
CheckpointManager holding(const PipelineConfig& pipeline = {}, ManagerOptions options = {}) {
  const auto dir = scratch();
  auto saver = manager_in(dir);
  held().path = saver.save_checkpoint(bag_with(counting({3})), {.global_step = 12});
  saver.close();
  held().released = false;
  held().calls = 0;
  Config config;
  config.source = CustomSource{"held", {}, {.cache_dir = dir / "cache"}};
  config.pipeline = pipeline;
  return CheckpointManager(world().raw(), config, std::move(options));
}

TEST(PendingLoads, FetchBesideTheProgram) {
  auto manager = holding();
  Bag bag = bag_with(counting({3}, 9));
  PendingLoad pending = manager.load_checkpoint_async(bag);
  EXPECT_EQ(pending.is_ready(), !world().is_root());
  // What a program does meanwhile may use its communicator, and change what will be loaded.
  EXPECT_TRUE(manager.comm().all_equal(7));
  EXPECT_TRUE(bag.named_parameters()["weight"].equal(counting({3}, 9)));
  held().released = true;
  const auto context = pending.get();
  EXPECT_EQ(context.global_step, 12U);
  EXPECT_TRUE(bag.named_parameters()["weight"].equal(counting({3})));
  EXPECT_EQ(held().calls, world().is_root() ? 1 : 0);
  EXPECT_NE(held().caller, std::this_thread::get_id());
  EXPECT_TRUE(pending.is_ready());
  EXPECT_THROW(pending.get(), Error);
  manager.close();
}

TEST(PendingLoads, BeginInGetWhereTheyMayNotRunBeside) {
  auto manager = holding({.async_execution = false});
  Bag bag = bag_with(counting({3}, 9));
  PendingLoad pending = manager.load_checkpoint_async(bag);
  EXPECT_EQ(held().calls, 0);
  held().released = true;
  EXPECT_EQ(pending.get().global_step, 12U);
  EXPECT_EQ(held().calls, world().is_root() ? 1 : 0);
  manager.close();
}

TEST(PendingLoads, MayBeGivenUpWithoutTheOtherRanks) {
  auto manager = holding();
  Bag bag = bag_with(counting({3}, 9));
  {
    const PendingLoad pending = manager.load_checkpoint_async(bag);
    held().released = true;
  }
  EXPECT_TRUE(bag.named_parameters()["weight"].equal(counting({3}, 9)));
  EXPECT_EQ(manager.load_checkpoint(bag).global_step, 12U);
  manager.close();
}

TEST(PendingLoads, TellInGetWhatWentWrong) {
  auto manager = holding();
  held().path = "/nowhere/at/all";
  held().released = true;
  Bag bag = bag_with(counting({3}, 9));
  PendingLoad pending = manager.load_checkpoint_async(bag);
  expect_same_error(Errc::not_found, [&] { pending.get(); });
  manager.set_source(LocalSource{"/nowhere/else"});
  pending = manager.load_checkpoint_async(bag);
  expect_same_error(Errc::not_found, [&] { pending.get(); });
  EXPECT_TRUE(bag.named_parameters()["weight"].equal(counting({3}, 9)));
  manager.close();

  CheckpointManager without(world().raw(), Config{});
  pending = without.load_checkpoint_async(bag);
  expect_same_error(Errc::usage, [&] { pending.get(); });
  without.close();
}

TEST(PendingLoads, KeepTheConfigurationThatTheyBeganWith) {
  auto manager = holding();
  const auto other = scratch();
  auto saver = manager_in(other);
  saver.save_checkpoint(bag_with(counting({3}, 50)), {.global_step = 13});
  Bag bag = bag_with(counting({3}, 9));
  PendingLoad pending = manager.load_checkpoint_async(bag);
  manager.set_source(LocalSource{other});
  held().released = true;
  const auto context = pending.get();
  EXPECT_EQ(context.global_step, 12U);
  ASSERT_TRUE(context.config.source.has_value());
  EXPECT_EQ(source_type(*context.config.source), "held");
  EXPECT_EQ(manager.load_checkpoint(bag).global_step, 13U);
  saver.close();
  manager.close();
}

TEST(Timeouts, BoundTheWholeLoadAndNameTheStage) {
  ManagerOptions options;
  options.placement = [](const std::string&, const at::Tensor& tensor) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // longer than the limit below
    return Placement::replicated({tensor.sizes().begin(), tensor.sizes().end()});
  };
  auto manager = holding({.timeout = std::chrono::milliseconds(2)}, options);
  manager.set_source(LocalSource{held().path});
  Bag bag = bag_with(counting({3}, 9));
  const auto text = expect_same_error(Errc::timeout, [&] { manager.load_checkpoint(bag); });
  EXPECT_EQ(text.find("load: "), 0U) << text;
  EXPECT_NE(text.find("pipeline.timeout (0.002 s)"), std::string::npos) << text;
  EXPECT_EQ(manager.last_trace().back().result.substr(0, 7), "failed:");
  EXPECT_TRUE(bag.named_parameters()["weight"].equal(counting({3}, 9)));
  // Nobody has lost the communicator by it.
  EXPECT_TRUE(manager.comm().all_equal(1));
  manager.close();
}

TEST(Timeouts, AnOlderCheckpointGetsWhatIsLeftOfTheTime) {
  const auto dir = scratch();
  const Bag saved = bag_with(counting({3}));
  auto saver = manager_in(dir);
  for (const std::uint64_t step : {1, 2}) saver.save_checkpoint(saved, {.global_step = step});
  saver.close();
  if (world().is_root()) {
    const std::string values = bytes_of(counting({3}));
    std::fstream file(checkpoint_path(dir, 2), std::ios::in | std::ios::out | std::ios::binary);
    const std::string all{std::istreambuf_iterator<char>(file), {}};
    file.seekp(static_cast<std::streamoff>(all.find(values)));
    file.put('!');
  }
  world().all_equal(0);
  // The second look at a placement is the second checkpoint's: the time is over by then, and is not
  // where it begins anew.
  const auto timeout = std::chrono::milliseconds(1500);
  const auto begin = std::chrono::steady_clock::now();
  int looks = 0;
  ManagerOptions options;
  options.placement = [&](const std::string&, const at::Tensor& tensor) {
    if (++looks == 2) std::this_thread::sleep_until(begin + timeout + timeout / 10);
    return Placement::replicated({tensor.sizes().begin(), tensor.sizes().end()});
  };
  Config config;
  config.source = LocalSource{dir};
  config.pipeline.timeout = timeout;
  CheckpointManager manager(world().raw(), config, options);
  Bag bag = bag_with(counting({3}, 9));
  const auto text = expect_same_error(Errc::timeout, [&] { manager.load_checkpoint(bag); });
  EXPECT_NE(text.find("pipeline.timeout (1.5 s)"), std::string::npos) << text;
  EXPECT_TRUE(bag.named_parameters()["weight"].equal(counting({3}, 9)));
  manager.close();
}

}  // namespace
}  // namespace cairn::test
