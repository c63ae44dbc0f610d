#include "cairn/callback.hpp"

#include <torch/optim/adam.h>
#include <torch/optim/schedulers/step_lr.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <thread>
#include <tuple>

#include "torch/network.hpp"
#include "torch/note.hpp"
#include "torch/toy.hpp"

// The callback in a loop.
namespace cairn::test {
namespace {

namespace optim = torch::optim;
namespace fs = std::filesystem;

std::vector<std::string> files_of(const fs::path& dir) {
  world().all_equal(0);  // everybody has done what it does
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (entry.path().extension() == ".h5") names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  world().all_equal(0);  // nobody removes what another still lists
  return names;
}

using Files = std::vector<std::string>;

/// Of a tensor's first element. Collective.
void flip_a_byte(const fs::path& checkpoint, const std::string& tensor) {
  const std::uint64_t at = open_checkpoint(world(), checkpoint).find(tensor)->offset;
  if (world().is_root()) {
    std::fstream file(checkpoint, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const int byte = file.get();
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(byte ^ 1));
  }
  world().all_equal(0);  // damaged for all from here on
}

TEST(Callback, ALoopSavesResumesAndEnds) {
  const auto dir = scratch();
  Config config = config_for(dir);
  config.save.every_n_steps = 4;
  config.save.every_n_epochs = 2;
  config.save.monitor = "val";
  const auto run = [&](std::uint64_t last) {
    CheckpointManager manager(world().raw(), config);
    Model model(1);
    optim::Adam optimizer(one_group(model), optim::AdamOptions(1e-2));
    CheckpointCallback callback(manager, model, optimizer);
    callback.on_save_checkpoint(
        [](CheckpointInfo& info) { info.metadata["note"] = R"({"by": "test"})"; });
    std::uint64_t step = callback.on_train_start().global_step;
    while (step < last && !callback.should_stop()) {
      train(model, optimizer, 1);
      callback.on_step_end(++step);
      if (step == 5) callback.on_validation_end({{"val", 0.5}});
      if (step % 3 == 0) callback.on_epoch_end(step / 3 - 1);
    }
    callback.on_train_end();
    EXPECT_EQ(callback.exit_code(), 0);
    manager.close();
    return bytes_of(model);
  };
  run(7);
  EXPECT_EQ(files_of(dir), (Files{"step-00000004.h5", "step-00000005.h5", "step-00000006.h5",
                                  "step-00000007.h5"}));
  const auto resumed = run(9);
  EXPECT_EQ(files_of(dir).back(), "step-00000009.h5");
  if (world().is_root()) {
    for (const auto& entry : fs::directory_iterator(dir)) fs::remove(entry);
  }
  world().all_equal(0);
  EXPECT_EQ(run(9), resumed) << "the same as without a break";

  CheckpointManager manager(world().raw(), config);
  Model model(1);
  manager.set_source(LocalSource{dir / "step-00000005.h5"});
  const auto context = manager.load_checkpoint(model);
  EXPECT_EQ(context.metrics.at("val"), 0.5);
  EXPECT_EQ(context.documents.at("user"), R"({"note":{"by":"test"}})");
  manager.set_source(LocalSource{dir / "step-00000006.h5"});
  EXPECT_EQ(manager.load_checkpoint(model).epoch, 2U) << "the epoch in which a resume goes on";
  EXPECT_TRUE(context.metrics.contains("val"));
  manager.close();
}

/// A trainer whose epochs each end with a step of the scheduler.
struct EpochLoop {
  EpochLoop(const Config& config, std::uint64_t of_epoch)
      : manager(world().raw(), config),
        callback(manager, model, optimizer, scheduler),
        steps_of_epoch(of_epoch) {
    const auto context = callback.on_train_start();
    step = context.global_step;
    epoch = context.epoch;
  }

  void run_to(std::uint64_t last) {
    while (step < last && !callback.should_stop()) {
      train(model, optimizer, 1);
      callback.on_step_end(++step);
      if (step % steps_of_epoch != 0) continue;
      scheduler.step();
      callback.on_epoch_end(epoch++);
    }
  }

  /// What nothing has disturbed: the parameters, and the epoch and learning rate of their end.
  auto result() {
    return std::tuple(bytes_of(model), epoch, optimizer.param_groups().front().options().get_lr());
  }

  CheckpointManager manager;
  Model model{1};
  optim::SGD optimizer{one_group(model), optim::SGDOptions(0.1).momentum(0.9)};
  optim::StepLR scheduler{optimizer, 1, 0.5};
  CheckpointCallback callback;
  std::uint64_t steps_of_epoch;
  std::uint64_t step = 0;
  std::uint64_t epoch = 0;
};

TEST(Callback, WhatEndsAnEpochIsNotLostWhenItsLastStepWasSavedBefore) {
  const auto undisturbed = [](std::uint64_t steps_of_epoch) {
    EpochLoop loop(config_for(scratch()), steps_of_epoch);
    loop.run_to(9);
    loop.manager.close();
    return loop.result();
  };
  const auto expected = undisturbed(3);
  const std::vector<std::optional<AsyncOptions>> ways{
      std::nullopt, AsyncOptions{.when_busy = WhenBusy::wait},
      AsyncOptions{.when_busy = WhenBusy::skip}, AsyncOptions{.when_busy = WhenBusy::queue}};
  for (const auto& async : ways) {
    for (const std::uint64_t every_n_epochs : {0U, 1U}) {
      Config config = config_for(scratch());
      config.save.every_n_steps = 3;
      config.save.every_n_epochs = every_n_epochs;
      config.save.async = async;
      {
        EpochLoop dies(config, 3);
        dies.run_to(4);
        dies.manager.close();
      }
      world().all_equal(0);  // the lease is rank 0's to give back
      EpochLoop resumed(config, 3);
      EXPECT_EQ(resumed.step, 3U);
      EXPECT_EQ(resumed.epoch, 1U);
      resumed.run_to(9);
      EXPECT_EQ(resumed.result(), expected);
      resumed.callback.on_train_end();
      resumed.manager.close();
    }
  }
  const auto expected_of_one = undisturbed(1);
  for (const auto& async : ways) {
    Config config = config_for(scratch());
    config.save.async = async;
    {
      EpochLoop stopped(config, 1);
      if (world().rank() == world().size() - 1) std::raise(SIGTERM);
      stopped.run_to(9);
      stopped.callback.on_train_end();
      EXPECT_EQ(stopped.callback.exit_code(), kExitRequeue);
      EXPECT_EQ(files_of(config.save.dir), Files{checkpoint_path("", stopped.step).string()});
      stopped.manager.close();
    }
    world().all_equal(0);
    EpochLoop resumed(config, 1);
    EXPECT_EQ(resumed.epoch, resumed.step);
    resumed.run_to(9);
    EXPECT_EQ(resumed.result(), expected_of_one);
    resumed.manager.close();
  }
}

TEST(Callback, ASignalOnOneRankSavesAndAsksForARequeue) {
  const auto dir = scratch();
  CheckpointManager manager(world().raw(), config_for(dir));
  Model model(1);
  CheckpointCallback callback(manager, model);
  std::uint64_t step = callback.on_train_start().global_step;
  if (world().rank() == world().size() - 1) std::raise(SIGTERM);
  while (step < 100'000 && !callback.should_stop()) callback.on_step_end(++step);
  callback.on_train_end();
  EXPECT_EQ(callback.stop_cause(), SaveCause::signal);
  EXPECT_EQ(callback.exit_code(), kExitRequeue);
  EXPECT_EQ(files_of(dir), Files{checkpoint_path("", step).string()});
  manager.close();
}

TEST(Callback, WithoutTimeForAWholeCheckpointTheModelIsSavedBesideTheRun) {
  const auto dir = scratch();
  Config config = config_for(dir);
  config.save.every_n_steps = 3;
  Model model(1);
  optim::SGD optimizer(one_group(model), optim::SGDOptions(1e-2).momentum(0.9));
  {
    CheckpointManager manager(world().raw(), config);
    CheckpointCallback callback(manager, model, optimizer);
    callback.on_train_start();
    for (std::uint64_t step = 1; step <= 3; ++step) {
      train(model, optimizer, 1);
      callback.on_step_end(step);
    }
    callback.on_train_end();
    manager.close();
  }
  config.save.preemption.time_limit_s = 0.001;
  CheckpointManager manager(world().raw(), config);
  CheckpointCallback callback(manager, model, optimizer);
  std::uint64_t step = callback.on_train_start().global_step;
  while (!callback.should_stop()) callback.on_step_end(++step);
  callback.on_train_end();
  EXPECT_EQ(callback.stop_cause(), SaveCause::time_limit);
  EXPECT_EQ(callback.exit_code(), kExitRequeue);
  const auto names = files_of(dir);
  ASSERT_EQ(names.size(), 2U);
  EXPECT_EQ(names.front(), "step-00000003.h5");
  EXPECT_TRUE(names.back().starts_with("weights-")) << names.back();
  EXPECT_EQ(manager.newest_checkpoint()->filename(), "step-00000003.h5");
  const Manifest weights = open_checkpoint(world(), dir / names.back());
  EXPECT_NE(weights.find("model/bias"), nullptr);
  EXPECT_EQ(weights.find("optimizer/bias/momentum_buffer"), nullptr);
  manager.close();
}

/// Its load takes a while.
class Slow : public Note {
 public:
  Slow() : Note("x") {}
  void load(const std::string& state) override {
    std::this_thread::sleep_for(kTime);
    Note::load(state);
  }
  static constexpr std::chrono::milliseconds kTime{300};
};

TEST(Callback, TheTimeOfTheLoadStandsForThatOfASaveUntilOneIsMeasured) {
  using Seconds = std::chrono::duration<double>;
  const auto dir = scratch();
  Model model(1);
  {
    CheckpointManager manager(world().raw(), config_for(dir));
    Slow slow;
    manager.add_state("slow", slow);
    manager.save_checkpoint(model, {.global_step = 3});
    manager.close();
  }
  Config config = config_for(dir);
  config.save.preemption.time_limit_s = 1;
  CheckpointManager manager(world().raw(), config);
  Slow slow;
  manager.add_state("slow", slow);
  CheckpointCallback callback(manager, model);
  const auto begun = std::chrono::steady_clock::now();
  std::uint64_t step = callback.on_train_start().global_step;
  const double left = std::max(1 - Seconds(std::chrono::steady_clock::now() - begun).count(), 0.0);
  const double lead = std::min(2 * Seconds(Slow::kTime).count(), left / 2);
  std::this_thread::sleep_until(begun + Seconds(1 - lead));
  while (step < 200 && !callback.should_stop()) callback.on_step_end(++step);
  EXPECT_EQ(callback.stop_cause(), SaveCause::time_limit) << "a twentieth of a second is too little";
  callback.on_train_end();
  manager.close();
}

TEST(Callback, TheModelAloneNeedsNoPreparationWhenTimeIsShort) {
  const auto dir = scratch();
  Config config = config_for(dir);
  config.save.every_n_steps = 2;
  config.save.preemption.grace_s = 0.001;  // shorter than any save
  CheckpointManager manager(world().raw(), config);
  Model model(1);
  optim::SGD optimizer(one_group(model), optim::SGDOptions(1e-2).momentum(0.9));
  CheckpointCallback callback(manager, model, optimizer);
  std::uint64_t step = callback.on_train_start().global_step;
  while (step < 2) {
    train(model, optimizer, 1);
    callback.on_step_end(++step);
  }
  EXPECT_EQ(files_of(dir), Files{"step-00000002.h5"});
  const ScopedFault fault("layout.skeleton:0:error");
  if (world().rank() == world().size() - 1) std::raise(SIGTERM);
  while (!callback.should_stop()) {
    train(model, optimizer, 1);
    // Past the next whole save, which needs no new layout either.
    callback.on_step_end(++step);
  }
  callback.on_train_end();
  const auto names = files_of(dir);
  EXPECT_TRUE(names.back().starts_with("weights-")) << names.back();
  EXPECT_EQ(open_checkpoint(world(), dir / names.back()).find("optimizer/bias/momentum_buffer"),
            nullptr);
  Model other(9);
  CheckpointManager importer(world().raw(), Config{});
  importer.set_source(LocalSource{dir / names.back()});
  importer.load_checkpoint(other);
  EXPECT_TRUE(other.weight.equal(model.weight));
  importer.close();
  manager.close();
}

/// A loop that is signalled on its last rank in the middle of its first save.
void stop_in_a_save(Config config) {
  const auto dir = config.save.dir;
  config.save.every_n_steps = 2;
  ManagerOptions options;
  bool raised = false;
  options.progress = [&](const SaveProgress& progress) {
    if (raised || progress.step != SaveStep::move || world().rank() != world().size() - 1) return;
    raised = true;
    std::raise(SIGTERM);
  };
  CheckpointManager manager(world().raw(), config, options);
  Model model(1);
  CheckpointCallback callback(manager, model);
  std::uint64_t step = callback.on_train_start().global_step;
  while (step < 100'000 && !callback.should_stop()) {
    if (step == 1 && config.save.async && world().is_root()) std::raise(SIGTERM);
    callback.on_step_end(++step);
  }
  callback.on_train_end();
  EXPECT_EQ(callback.exit_code(), kExitRequeue);
  const auto names = files_of(dir);
  EXPECT_EQ(names.front(), config.save.async && step < 2 ? names.back() : "step-00000002.h5");
  EXPECT_EQ(names.back(), checkpoint_path("", step).string()) << "the last step is saved, too";
  EXPECT_EQ(manager.newest_checkpoint()->filename(), names.back());
  manager.close();
}

TEST(Callback, ASignalInTheMiddleOfASaveStopsAfterIt) { stop_in_a_save(config_for(scratch())); }

TEST(Callback, ASignalBesideASaveInTheBackgroundLosesNeither) {
  Config config = config_for(scratch());
  config.save.async = AsyncOptions{};
  stop_in_a_save(config);
}

/// Its load is interrupted by a signal.
class Interrupted : public Note {
 public:
  Interrupted() : Note("x") {}
  void load(const std::string& state) override {
    std::raise(SIGTERM);
    Note::load(state);
  }
};

TEST(Callback, ASignalWhileItLoadsStopsAfterTheFirstSteps) {
  const auto dir = scratch();
  Model model(1);
  for (const bool resumes : {false, true}) {
    CheckpointManager manager(world().raw(), config_for(dir));
    Interrupted note;
    manager.add_state("note", note);
    CheckpointCallback callback(manager, model);
    std::uint64_t step = callback.on_train_start().global_step;
    EXPECT_EQ(step, resumes ? 3U : 0U);
    const std::uint64_t last = resumes ? 100'000 : 3;
    while (step < last && !callback.should_stop()) callback.on_step_end(++step);
    callback.on_train_end();
    EXPECT_EQ(callback.exit_code(), resumes ? kExitRequeue : 0);
    EXPECT_EQ(manager.newest_checkpoint()->filename(), checkpoint_path("", step));
    manager.close();
    world().all_equal(0);  // the lease is rank 0's to give back
  }
}

TEST(Callback, TheFirstSaveInTheBackgroundFindsItsLayoutMade) {
  const auto dir = scratch();
  Config config = config_for(dir);
  config.save.every_n_steps = 3;
  config.save.async = AsyncOptions{};
  config.save.preemption.grace_s = 1000;  // so that the model alone has a layout, too
  CheckpointManager manager(world().raw(), config);
  Model model(1);
  optim::Adam optimizer(one_group(model), optim::AdamOptions(1e-2));
  CheckpointCallback callback(manager, model, optimizer);
  callback.on_train_start();
  train(model, optimizer, 1);
  callback.on_step_end(1);
  EXPECT_EQ(files_of(dir), Files{}) << "nothing is saved yet";
  // A fault where the layout is made would strike now if the save made it.
  const ScopedFault fault("layout:0:error");
  for (std::uint64_t step = 2; step <= 3; ++step) {
    train(model, optimizer, 1);
    callback.on_step_end(step);
  }
  callback.on_train_end();
  EXPECT_EQ(files_of(dir), Files{"step-00000003.h5"});
  manager.close();
}

TEST(Callback, TheLastStepIsSavedThoughTheBackgroundWasBusy) {
  const auto dir = scratch();
  Config config = config_for(dir);
  config.save.every_n_steps = 1;
  config.save.async = AsyncOptions{.when_busy = WhenBusy::skip};
  CheckpointManager manager(world().raw(), config);
  Model model(1);
  CheckpointCallback callback(manager, model);
  callback.on_train_start();
  for (std::uint64_t step = 1; step <= 6; ++step) callback.on_step_end(step);
  callback.on_train_end();
  EXPECT_EQ(files_of(dir).back(), "step-00000006.h5");
  EXPECT_EQ(manager.newest_checkpoint()->filename(), "step-00000006.h5");
  manager.close();
}

TEST(Callback, AnExceptionSavesNothingAndTellsWhereANewStartBegins) {
  const auto dir = scratch();
  Config config = config_for(dir);
  config.save.every_n_steps = 2;
  CheckpointManager manager(world().raw(), config);
  Model model(1);
  CheckpointCallback callback(manager, model);
  callback.on_train_start();
  for (std::uint64_t step = 1; step <= 3; ++step) callback.on_step_end(step);
  testing::internal::CaptureStderr();
  callback.on_exception(Error(Errc::io, "the data is gone", 0));
  callback.on_exception(std::runtime_error("on this rank alone"));
  const std::string told = testing::internal::GetCapturedStderr();
  EXPECT_EQ(files_of(dir), Files{"step-00000002.h5"});
  if (world().is_root()) {
    EXPECT_NE(told.find("step 3 (the data is gone)"), std::string::npos) << told;
    EXPECT_NE(told.find("step-00000002.h5"), std::string::npos) << told;
  } else {
    EXPECT_EQ(told, "");
  }
  manager.close();
}

TEST(Callback, ASecondJobInTheDirectoryIsRefused) {
  const auto dir = scratch();
  Model model(1);
  CheckpointManager first(world().raw(), config_for(dir));
  CheckpointManager second(world().raw(), config_for(dir));
  CheckpointCallback other(second, model);
  {
    CheckpointCallback callback(first, model);
    callback.on_train_start();
    try {
      other.on_train_start();
      ADD_FAILURE() << "two jobs use the directory";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Errc::refused);
      EXPECT_NE(std::string(error.what()).find(dir.string()), std::string::npos) << error.what();
    }
  }
  world().all_equal(0);
  EXPECT_EQ(other.on_train_start().global_step, 0U) << "the first job has ended";
  first.close();
  second.close();
}

TEST(Callback, AJobThatLostItsLeaseSavesNothingMore) {
  const auto dir = scratch();
  Config config = config_for(dir);
  config.save.every_n_steps = 2;
  CheckpointManager manager(world().raw(), config);
  Model model(1);
  CheckpointCallback callback(manager, model);
  callback.on_train_start();
  for (std::uint64_t step = 1; step <= 3; ++step) callback.on_step_end(step);
  if (world().is_root()) fs::remove(dir / ".lease");
  const std::string text = expect_same_error(Errc::refused, [&] { callback.on_step_end(4); });
  EXPECT_NE(text.find(dir.string()), std::string::npos) << text;
  EXPECT_EQ(files_of(dir), Files{"step-00000002.h5"});
  expect_same_error(Errc::refused, [&] { callback.on_train_end(); });
  EXPECT_EQ(files_of(dir), Files{"step-00000002.h5"});
  manager.close();
}

TEST(Callback, ADamagedNewestCheckpointIsPassedOverOnceAndForAll) {
  const auto dir = scratch();
  Config config = config_for(dir);
  config.save.every_n_steps = 2;
  Model model(1);
  const auto start = [&](std::uint64_t expected) {
    CheckpointManager manager(world().raw(), config);
    CheckpointCallback callback(manager, model);
    testing::internal::CaptureStderr();
    std::uint64_t step = callback.on_train_start().global_step;
    const std::string told = testing::internal::GetCapturedStderr();
    EXPECT_EQ(step, expected);
    if (step == 0) {
      while (step < 4) callback.on_step_end(++step);
    }
    manager.close();
    world().all_equal(0);  // the lease is rank 0's to give back
    return told;
  };
  start(0);
  const fs::path newest = dir / "step-00000004.h5";
  const fs::path mark = dir / ".step-00000004.h5.bad";
  flip_a_byte(newest, "model/bias");
  const std::string first = start(2);
  EXPECT_TRUE(fs::exists(mark));
  const auto written = fs::last_write_time(mark);
  const std::string second = start(2);
  EXPECT_EQ(fs::last_write_time(mark), written);
  const auto says = [&](const std::string& told, const std::string& what) {
    return told.find("'" + newest.string() + "' is " + what) != std::string::npos;
  };
  EXPECT_EQ(says(first, "damaged"), world().is_root()) << first;
  EXPECT_EQ(says(second, "passed over"), world().is_root()) << second;
  EXPECT_FALSE(says(second, "damaged")) << "it was looked at again: " << second;
}

TEST(Callback, WhatAResumeCouldNotRepeatIsRefused) {
  Config config = config_for(scratch());
  config.source = LocalSource{"pretrained.h5"};
  config.loading = LoadingConfig{.type = LoadingType::transfer_learning, .freeze_loaded = true};
  CheckpointManager manager(world().raw(), config);
  Model model(1);
  CheckpointCallback callback(manager, model);
  try {
    callback.on_train_start();
    ADD_FAILURE() << "a resume would train what was frozen";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Errc::usage);
    EXPECT_NE(std::string(error.what()).find("freeze_loaded"), std::string::npos) << error.what();
  }
  manager.close();
}

TEST(Callback, ARunThatNeverGetsFurtherIsStopped) {
  const auto dir = scratch();
  Config config = config_for(dir);
  config.save.max_restarts = 2;
  config.save.every_n_steps = 2;
  Model model(1);
  const auto start = [&](std::uint64_t steps, bool ends) {
    CheckpointManager manager(world().raw(), config);
    CheckpointCallback callback(manager, model);
    std::uint64_t step = callback.on_train_start().global_step;
    for (std::uint64_t done = 0; done < steps; ++done) callback.on_step_end(++step);
    if (ends) callback.on_train_end();
    manager.close();
    world().all_equal(0);  // the lease is rank 0's to give back
  };
  for (int crashes = 0; crashes < 3; ++crashes) start(1, false);
  EXPECT_THROW(start(1, false), Error);
  if (world().is_root()) fs::remove(dir / ".restarts");
  world().all_equal(0);
  start(3, false);
  for (int crashes = 0; crashes < 3; ++crashes) start(0, false);  // at step 2, which is further
  EXPECT_THROW(start(0, false), Error);
  if (world().is_root()) fs::remove(dir / ".restarts");
  world().all_equal(0);
  for (int good = 0; good < 5; ++good) start(0, true);
}

TEST(Callback, ARunOfItsOwnGoesOnWhateverItsBeginningWas) {
  const auto pretrained = scratch();
  const auto dir = scratch();
  Model model(5);
  {
    auto manager = manager_in(pretrained);
    manager.save_checkpoint(model, {.global_step = 70});
    manager.close();
  }
  Config config = config_for(dir);
  config.source = LocalSource{pretrained};
  config.loading = LoadingConfig{.type = LoadingType::cold_start};
  config.modifiers = {CustomModifier{"of_the_beginning", {}}, FreezeModifier{{"bias"}}};
  register_modifier_type("of_the_beginning", [](const CustomModifier&, torch::nn::Module&) {
    return [] { return ModifierReport{"of_the_beginning", {}, "done"}; };
  });
  const auto run = [&](std::uint64_t first) {
    CheckpointManager manager(world().raw(), config);
    CheckpointCallback callback(manager, model);
    const auto context = callback.on_train_start();
    EXPECT_EQ(context.global_step, first);
    callback.on_step_end(first + 1);
    callback.on_train_end();
    EXPECT_FALSE(model.bias.requires_grad());
    manager.close();
    return context;
  };
  EXPECT_EQ(run(0).modifiers.size(), 2U);
  const auto context = run(1);
  EXPECT_EQ(context.modifiers.size(), 1U) << "what changes values acts at the beginning alone";
  EXPECT_EQ(context.modifiers.front().type, "freeze");
}

}  // namespace
}  // namespace cairn::test
