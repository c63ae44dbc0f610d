#include "cairn/callback.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <variant>

#include "base/throw.hpp"
#include "cairn/run.hpp"
#include "manifest/names.hpp"
#include "trainer/states.hpp"

namespace cairn {
namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// What the schedule knows, as a part of the checkpoint.
class ScheduleState : public Stateful {
 public:
  explicit ScheduleState(SaveSchedule& schedule) : schedule_(schedule) {}
  std::string state() const override { return schedule_.state(); }
  void load(const std::string& state) override { schedule_.load(state); }

 private:
  SaveSchedule& schedule_;
};

/// Types of modifiers that change what a load brings; "'reset', 'halve'".
std::string types_that_need_a_load(const std::vector<Modifier>& modifiers) {
  std::string types;
  for (const Modifier& modifier : modifiers) {
    const auto* custom = std::get_if<CustomModifier>(&modifier);
    if (custom == nullptr && !std::holds_alternative<ResetModifier>(modifier)) continue;
    types += fmt::format("{}'{}'", types.empty() ? "" : ", ", custom ? custom->type : "reset");
  }
  return types;
}

/// A save in the background whose end has not been seen.
struct Underway {
  AsyncSave save;
  double begun;
};

}  // namespace

struct CheckpointCallback::Impl {
  CheckpointManager& manager;
  torch::nn::Module& model;
  torch::optim::Optimizer* optimizer;
  std::optional<SchedulerRef> scheduler;
  SaveSchedule schedule;
  ScheduleState state;
  std::function<void(CheckpointInfo&)> add;
  std::optional<Underway> underway;
  std::uint64_t step = 0;
  std::uint64_t epoch = 0;
  std::map<std::string, double> metrics;  // of this step
  std::filesystem::path newest;           // what a new start would take, as far as is known
  std::optional<RunLease> lease;
  bool weights_prepared = false;
  bool saves_prepared = false;

  Impl(CheckpointManager& m, torch::nn::Module& net, torch::optim::Optimizer* o,
       std::optional<SchedulerRef> s)
      : manager(m),
        model(net),
        optimizer(o),
        scheduler(s),
        schedule(m.comm(), m.config().save),
        state(schedule) {
    manager.add_state(detail::kTrainerState, state);
  }

  ~Impl() { manager.remove_state(detail::kTrainerState); }

  CheckpointContext load() {
    if (scheduler) return manager.load_checkpoint(model, *optimizer, *scheduler);
    if (optimizer != nullptr) return manager.load_checkpoint(model, *optimizer);
    return manager.load_checkpoint(model);
  }

  std::filesystem::path save_now(const CheckpointInfo& info) {
    if (scheduler) return manager.save_checkpoint(model, *optimizer, *scheduler, info);
    if (optimizer != nullptr) return manager.save_checkpoint(model, *optimizer, info);
    return manager.save_checkpoint(model, info);
  }

  AsyncSave save_behind(const CheckpointInfo& info) {
    if (scheduler) return manager.save_checkpoint_async(model, *optimizer, *scheduler, info);
    if (optimizer != nullptr) return manager.save_checkpoint_async(model, *optimizer, info);
    return manager.save_checkpoint_async(model, info);
  }

  /// The first save in the background is to take no longer than the others, nor to make another
  /// layout. The optimizer has its state after its first step. Collective.
  void prepare_saves() {
    if (std::exchange(saves_prepared, true)) return;
    const SaveConfig& save = manager.config().save;
    const bool periodic = save.every_n_steps != 0 || save.every_n_epochs != 0 ||
                          save.every_minutes != 0 || !save.monitor.empty();
    if (!save.async || !periodic || save.dir.empty()) return;
    const CheckpointInfo what = info();
    if (scheduler) {
      manager.prepare_save(model, *optimizer, *scheduler, what);
    } else if (optimizer != nullptr) {
      manager.prepare_save(model, *optimizer, what);
    } else {
      manager.prepare_save(model, what);
    }
    prepare_weights(what);
  }

  /// What a checkpoint does not say can't be had again by a resume. Collective.
  void check_loading() {
    agree(manager.comm(), "on_train_start", [&] {
      const Config& config = manager.config();
      if (config.save.dir.empty() || !config.loading || !config.loading->freeze_loaded) return;
      detail::fail(Errc::usage,
                   "checkpoint.loading.freeze_loaded can't be repeated when the run goes on from a "
                   "checkpoint of its own; name the layers in a modifier of type freeze instead");
    });
  }

  /// The model of a run's checkpoints, before one is there and before one is loaded: without that
  /// the second start would obey modifiers that the first one did not. Collective.
  std::vector<ModifierReport> prepare_model() {
    if (manager.config().modifiers.empty()) return {};
    const std::size_t before = manager.adapters().layers().size();
    auto reports = manager.prepare_model(model);
    std::uint64_t fresh[1] = {manager.adapters().layers().size() - before};
    manager.comm().all_reduce_max(std::span<std::uint64_t>(fresh));
    if (optimizer != nullptr && fresh[0] != 0) {
      warn(
          "the optimizer was built before the model had the adapters of a lora modifier, and does "
          "not step them; call CheckpointManager::prepare_model before it is built");
    }
    return reports;
  }

  /// Collective.
  std::vector<ModifierReport> begin_with_nothing() {
    const std::string types = types_that_need_a_load(manager.config().modifiers);
    if (!types.empty()) {
      warn(fmt::format("nothing is loaded, so modifiers of the types {} are left out", types));
    }
    return prepare_model();
  }

  /// Local.
  void warn(std::string_view text) const {
    if (manager.comm().is_root()) fmt::print(stderr, "cairn: warning: {}\n", text);
  }

  /// No other job uses the directory from here on. Collective.
  void take_lease() {
    const SaveConfig& save = manager.config().save;
    if (save.lease && !save.dir.empty() && !lease) lease.emplace(manager.comm(), save.dir);
  }

  RestartGuard guard() const {
    const SaveConfig& save = manager.config().save;
    return {save.dir, save.dir.empty() ? 0 : save.max_restarts};
  }

  /// Collective.
  void begin(const CheckpointContext& loaded) {
    take_lease();  // not taken yet where the program has loaded by itself
    step = loaded.global_step;
    epoch = loaded.epoch;
    newest = loaded.path;
    guard().begin(manager.comm(), newest.empty() ? std::nullopt : std::optional(step));
  }

  CheckpointInfo info() {
    CheckpointInfo info{.epoch = epoch, .global_step = step, .metrics = metrics};
    agree(manager.comm(), "on_save_checkpoint", [&] {
      if (add) add(info);
    });
    return info;
  }

  /// Collective.
  void save(const SaveDecision& decision) {
    if (!decision.save()) return;
    if (lease) lease->require(manager.comm());
    const double begun = seconds_now();
    const CheckpointInfo what = info();
    const bool last = should_stop() || decision.cause == SaveCause::end;
    if (decision.weights_only) {
      save_weights(what);
    } else if (manager.config().save.async && !last) {
      if (decision.again) {  // not to be skipped because the one that it replaces is on its way
        manager.wait();
        look_after_underway();
      }
      const AsyncSave begun_save = save_behind(what);
      if (begun_save.skipped()) return;  // it is made up for at the end, if it was the last
      underway = {begun_save, begun};
    } else {
      newest = save_now(what);
      schedule.measured(seconds_now() - begun);
    }
    if (!last) prepare_weights(what);
    schedule.saved(seconds_now() - begun);
  }

  /// So that the model alone, where there is no time for more, is written without any preparation.
  /// Collective.
  void prepare_weights(const CheckpointInfo& what) {
    if (weights_prepared || !schedule.may_run_short()) return;
    manager.prepare_export(weights_path(), model, ModelExport::weights, what);
    weights_prepared = true;
  }

  std::filesystem::path weights_path() const {
    return manager.config().save.dir / detail::names::weights_file(step);
  }

  bool should_stop() const { return schedule.stop_cause() != SaveCause::none; }

  /// A save in the background waits for no one, but would not be ready either.
  void save_weights(const CheckpointInfo& what) {
    const auto path = weights_path();
    manager.export_model(path, model, ModelExport::weights, what);
    if (!manager.comm().is_root()) return;
    fmt::print(stderr,
               "cairn: warning: there is no time for a whole checkpoint of step {}: only the model "
               "is saved, in '{}'; a new start resumes from the newest whole one\n",
               step, path.string());
  }

  /// How long a save in the background took, once that is known.
  void look_after_underway() {
    if (!underway) return;
    if (underway->save.durable()) {
      schedule.measured(seconds_now() - underway->begun);
      newest = checkpoint_path(manager.config().save.dir, underway->save.step());
      underway.reset();
    } else if (underway->save.error()) {
      underway.reset();
    }
  }

  /// Whether the newest step was to be saved in the background, and was not.
  bool lost_the_last() {
    const bool lost = underway && underway->save.step() == step && underway->save.error();
    look_after_underway();
    return lost;
  }
};

CheckpointCallback::CheckpointCallback(CheckpointManager& manager, torch::nn::Module& model)
    : impl_(std::make_unique<Impl>(manager, model, nullptr, std::nullopt)) {}
CheckpointCallback::CheckpointCallback(CheckpointManager& manager, torch::nn::Module& model,
                                       torch::optim::Optimizer& optimizer)
    : impl_(std::make_unique<Impl>(manager, model, &optimizer, std::nullopt)) {}
CheckpointCallback::CheckpointCallback(CheckpointManager& manager, torch::nn::Module& model,
                                       torch::optim::Optimizer& optimizer, SchedulerRef scheduler)
    : impl_(std::make_unique<Impl>(manager, model, &optimizer, scheduler)) {}
CheckpointCallback::~CheckpointCallback() = default;

CheckpointContext CheckpointCallback::on_train_start() {
  CheckpointContext context;
  impl_->check_loading();
  impl_->take_lease();
  if (impl_->manager.newest_checkpoint()) {
    // The directory, not the file: the source finds the newest one that can be loaded.
    impl_->manager.set_resume(impl_->manager.config().save.dir);
    impl_->prepare_model();
    const double begun = seconds_now();
    context = impl_->load();
    // The same bytes, ranks and file system: the best that is known before the first save.
    impl_->schedule.assume(seconds_now() - begun);
    impl_->schedule.resumed(context.global_step);
  } else if (impl_->manager.config().source) {
    context = impl_->load();
  } else {
    context.modifiers = impl_->begin_with_nothing();
  }
  impl_->begin(context);
  return context;
}

void CheckpointCallback::on_train_start(const CheckpointContext& loaded) {
  if (loaded.path.empty()) impl_->begin_with_nothing();
  impl_->begin(loaded);
}

void CheckpointCallback::on_step_end(std::uint64_t step) {
  impl_->step = step;
  impl_->metrics.clear();
  impl_->manager.poll();
  impl_->look_after_underway();
  impl_->prepare_saves();
  impl_->save(impl_->schedule.after_step(step));
}

void CheckpointCallback::on_epoch_end(std::uint64_t epoch) {
  impl_->epoch = epoch + 1;
  impl_->save(impl_->schedule.after_epoch(epoch));
}

void CheckpointCallback::on_validation_end(const std::map<std::string, double>& metrics) {
  impl_->metrics = metrics;
  impl_->save(impl_->schedule.after_validation(metrics));
}

void CheckpointCallback::on_save_checkpoint(std::function<void(CheckpointInfo&)> add) {
  impl_->add = std::move(add);
}

void CheckpointCallback::on_exception(const std::exception& error) noexcept {
  try {
    const auto* agreed = dynamic_cast<const Error*>(&error);
    const bool together =
        agreed != nullptr && agreed->rank() != Error::kLocal && agreed->code() != Errc::timeout;
    if (together) {
      impl_->manager.wait();
      impl_->look_after_underway();
    }
    if (!impl_->manager.comm().is_root()) return;
    fmt::print(stderr, "cairn: the training ends after step {} ({}); a new start {}\n", impl_->step,
               error.what(),
               impl_->newest.empty() ? "has no checkpoint to resume from"
                                     : fmt::format("resumes from '{}'", impl_->newest.string()));
  } catch (...) {
    // The error that ends the training is the one to be told.
  }
}

void CheckpointCallback::on_train_end() {
  impl_->manager.wait();
  const bool lost = impl_->lost_the_last();
  const SaveDecision decision = impl_->schedule.at_end();
  impl_->save(lost ? SaveDecision{SaveCause::end} : decision);
  if (!should_stop()) impl_->guard().finish(impl_->manager.comm());
}

bool CheckpointCallback::should_stop() const { return impl_->should_stop(); }
SaveCause CheckpointCallback::stop_cause() const { return impl_->schedule.stop_cause(); }
int CheckpointCallback::exit_code() const { return should_stop() ? kExitRequeue : 0; }

}  // namespace cairn
