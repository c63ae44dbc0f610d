#include "base/throw.hpp"
#include "cairn/source.hpp"
#include "cairn/torch.hpp"
#include "mpi/time_limit.hpp"
#include "pipeline/document.hpp"
#include "pipeline/foreign.hpp"
#include "pipeline/migrations/run.hpp"
#include "pipeline/trace.hpp"
#include "sources/acquisition.hpp"
#include "torch/agree.hpp"
#include "torch/collect.hpp"
#include "torch/legacy.hpp"
#include "torch/lineage.hpp"
#include "torch/modify.hpp"
#include "torch/restore.hpp"
#include "torch/settings.hpp"
#include "torch/share.hpp"
#include "torch/stage.hpp"

namespace cairn {

using namespace detail;

struct PendingLoad::Impl {
  std::unique_ptr<Acquisition> acquisition;  // none: nothing has begun yet
  std::function<CheckpointContext(std::unique_ptr<Acquisition>)> load;
};

PendingLoad::PendingLoad(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PendingLoad::~PendingLoad() = default;
PendingLoad::PendingLoad(PendingLoad&&) noexcept = default;
PendingLoad& PendingLoad::operator=(PendingLoad&&) noexcept = default;

bool PendingLoad::is_ready() const {
  return impl_ == nullptr || impl_->acquisition == nullptr || impl_->acquisition->is_over();
}

CheckpointContext PendingLoad::get() {
  if (impl_ == nullptr) fail(Errc::usage, "the pending load was taken already");
  const auto once = std::move(impl_);
  return once->load(std::move(once->acquisition));
}

struct CheckpointManager::Impl {
  Comm comm;
  Config config;
  ManagerOptions options;
  LoraAdapters adapters;
  States states;
  Lineage lineage;                // of this run; rank 0's counts
  Trace trace;                    // of the last load
  std::string history;            // rank 0: the document "migrations", where there is one
  Saver saver;                    // refers to comm, so an Impl stays where it is
  std::optional<Saver> exporter;  // as the saver; keeps the layout of the last export

  Impl(MPI_Comm parent, Config c, ManagerOptions o)
      : comm(parent, o.deadline),
        config(settled(comm, std::move(c))),
        options(std::move(o)),
        saver(comm, save_options(config, options)) {
    std::string fresh = new_uuid();
    comm.broadcast(fresh);
    lineage = begin_run(config, fresh);
    if (comm.is_root()) warn_of_idle_keys(config.save);
  }

  /// Gathers the state and hands it to `save`, one of the saver's members. Collective.
  template <class Save>
  std::filesystem::path save(const TrainerView& trainer, const CheckpointInfo& info, Save&& save) {
    Collected collected;
    std::filesystem::path path;
    agree_torch(comm, "save: collect state", [&] {
      if (config.save.dir.empty()) {
        fail(Errc::usage, "no directory to save to is configured; set save.dir");
      }
      collected = collect(trainer, options, info, adapters, states);
      add_history(collected);
      path = checkpoint_path(config.save.dir, info.global_step);
    });
    add_documents(collected);
    save(path, collected.state);
    return path;
  }

  /// What is saved is as the program's migrations leave it; where it has none, as those had left
  /// what it loaded. Local.
  void add_history(Collected& collected) {
    if (!comm.is_root()) return;
    if (history.empty() && !config.migrations.empty()) {
      history = migrations::history_of_new(config.migrations);
    }
    if (!history.empty()) collected.state.documents["migrations"] = history;
  }

  /// Collective.
  void add_documents(Collected& collected) {
    Lineage of_checkpoint = lineage;
    of_checkpoint.uuid = new_uuid();
    collected.state.documents["lineage"] = lineage_document(of_checkpoint);
    collected.state.documents.merge(merge_documents(comm, collected.documents));
  }

  /// Collective.
  Collected collect_for_export(const torch::nn::Module& model, ModelExport what,
                               const CheckpointInfo& info) {
    Collected collected;
    agree_torch(comm, "export: collect state", [&] {
      collected = collect_export(model, what, options, info, adapters, states);
      add_history(collected);
    });
    add_documents(collected);
    if (!exporter) {
      // Of its own: the layout that the other one keeps is that of whole checkpoints.
      SaveOptions save = save_options(config, options);
      save.delta = false;  // what is exported goes elsewhere
      exporter.emplace(comm, std::move(save));
    }
    return collected;
  }

  std::vector<ModifierReport> prepare_model(torch::nn::Module& model) {
    compare(comm, "prepare model", config, states);
    const Modification modification =
        prepare_modifiers(comm, model, config.modifiers, ModifierChoice::structure, adapters);
    std::vector<ModifierReport> reports;
    agree_torch(comm, "prepare model", [&] {
      reports = carry_out(modification);
      adapters.apply();
    });
    return unite_reports(comm, reports);
  }

  std::filesystem::path save_now(const TrainerView& trainer, const CheckpointInfo& info) {
    return save(trainer, info,
                [&](const auto& path, const StateView& state) { saver.save(path, state); });
  }

  AsyncSave save_async(const TrainerView& trainer, const CheckpointInfo& info) {
    std::optional<AsyncSave> begun;
    save(trainer, info,
         [&](const auto& path, const StateView& state) { begun = saver.save_async(path, state); });
    return *begun;
  }

  void prepare_save(const TrainerView& trainer, const CheckpointInfo& info) {
    save(trainer, info, [&](const auto& path, const StateView& state) {
      config.save.async ? saver.prepare(path, state) : saver.prepare_layout(path, state);
    });
  }

  /// Local.
  std::unique_ptr<Acquisition> acquire(const Config& of) const {
    return std::make_unique<Acquisition>(comm, *of.source, source_settings(of));
  }

  /// Whether the source has another checkpoint than this damaged one, in what is left of the time.
  /// Collective.
  bool fall_back(const Config& used, const std::filesystem::path& path, const Error& error,
                 const RestoreSettings& settings) {
    const TimeLimit limit(settings.until, settings.limit);
    return skip_damaged(comm, *used.source, source_settings(used), path, error);
  }

  CheckpointContext load(const TrainerState& trainer) { return load(config, trainer, nullptr); }

  /// By `used`: set_source may have replaced `config` meanwhile. Collective.
  CheckpointContext load(const Config& used, const TrainerState& trainer,
                         std::unique_ptr<Acquisition> acquisition) {
    trace = Trace();
    bool changed = false;
    RestoreSettings settings{options, used,     used.loading.value_or(LoadingConfig{}),
                             {},      adapters, states,
                             trace,   changed};
    settings.load = load_options(used, settings.loading);
    for (;;) {
      const auto path = trace.stage("source", [&] {
        check_source(used);
        if (!acquisition) acquisition = acquire(used);
        return acquisition->get(comm);
      });
      trace.set_bytes(acquisition->bytes());
      if (settings.limit.empty()) {  // an older checkpoint gets what is left of the time
        settings.until = acquisition->until();
        settings.limit = limit_text(acquisition->timeout());
      }
      acquisition.reset();  // ends its line on the terminal
      try {
        std::string loaded_history;
        const Manifest manifest = open(used, path, settings, loaded_history);
        CheckpointContext context = restore(comm, manifest, trainer, settings);
        if (used.migrations.empty()) history = std::move(loaded_history);
        lineage = descend(lineage, context);
        context.run = lineage;
        return context;
      } catch (const Error& error) {
        // Another checkpoint is for a model that is as it was.
        if (error.code() != Errc::corrupt || changed) throw;
        if (!fall_back(used, path, error, settings)) throw;
      }
    }
  }

  /// Local.
  std::unique_ptr<PendingLoad::Impl> load_later(const TrainerState& trainer,
                                                std::optional<SchedulerRef> scheduler) {
    auto pending = std::make_unique<PendingLoad::Impl>();
    pending->load = [this, begun = config, trainer,
                     scheduler](std::unique_ptr<Acquisition> acquisition) {
      TrainerState all = trainer;
      if (scheduler) all.scheduler = &*scheduler;
      return load(begun, all, std::move(acquisition));
    };
    if (config.source && config.pipeline.async_execution) pending->acquisition = acquire(config);
    return pending;
  }

  /// Whatever its format, with a container's names and documents; rank 0 gets its history.
  /// Collective.
  Manifest open(const Config& used, const std::filesystem::path& path,
                const RestoreSettings& settings, std::string& its_history) {
    const TimeLimit limit(settings.until, settings.limit);
    return stage(comm, trace, "open", [&] {
      Manifest manifest = open_checkpoint(comm, path);
      agree(comm, "open", [&] {
        manifest = as_container(std::move(manifest));
        if (comm.is_root()) its_history = migrations::history_of_next(manifest);
      });
      if (used.migrations.empty()) return manifest;
      const bool verify = settings.load.verify != VerifyWhen::never;
      return migrations::migrated_for_load(comm, std::move(manifest), used.migrations, verify);
    });
  }

  /// Collective.
  void check_source(const Config& used) {
    agree(comm, "load: source", [&] {
      check_fork(used);
      if (used.source) return;
      fail(Errc::usage,
           "no checkpoint to load is configured; set checkpoint.source, or call set_source");
    });
    compare(comm, "load: source", used, states);
  }
};

CheckpointManager::CheckpointManager(MPI_Comm comm, Config config, ManagerOptions options)
    : impl_(std::make_unique<Impl>(comm, std::move(config), std::move(options))) {}
CheckpointManager::~CheckpointManager() = default;
CheckpointManager::CheckpointManager(CheckpointManager&&) noexcept = default;
CheckpointManager& CheckpointManager::operator=(CheckpointManager&&) noexcept = default;

std::filesystem::path CheckpointManager::save_checkpoint(const torch::nn::Module& model,
                                                         const CheckpointInfo& info) {
  return impl_->save_now({model}, info);
}

std::filesystem::path CheckpointManager::save_checkpoint(const torch::nn::Module& model,
                                                         const torch::optim::Optimizer& optimizer,
                                                         const CheckpointInfo& info) {
  return impl_->save_now({model, &optimizer}, info);
}

std::filesystem::path CheckpointManager::save_checkpoint(const torch::nn::Module& model,
                                                         const torch::optim::Optimizer& optimizer,
                                                         SchedulerRef scheduler,
                                                         const CheckpointInfo& info) {
  return impl_->save_now({model, &optimizer, &scheduler}, info);
}

AsyncSave CheckpointManager::save_checkpoint_async(const torch::nn::Module& model,
                                                   const CheckpointInfo& info) {
  return impl_->save_async({model}, info);
}

AsyncSave CheckpointManager::save_checkpoint_async(const torch::nn::Module& model,
                                                   const torch::optim::Optimizer& optimizer,
                                                   const CheckpointInfo& info) {
  return impl_->save_async({model, &optimizer}, info);
}

AsyncSave CheckpointManager::save_checkpoint_async(const torch::nn::Module& model,
                                                   const torch::optim::Optimizer& optimizer,
                                                   SchedulerRef scheduler,
                                                   const CheckpointInfo& info) {
  return impl_->save_async({model, &optimizer, &scheduler}, info);
}

void CheckpointManager::prepare_save(const torch::nn::Module& model, const CheckpointInfo& info) {
  impl_->prepare_save({model}, info);
}

void CheckpointManager::prepare_save(const torch::nn::Module& model,
                                     const torch::optim::Optimizer& optimizer,
                                     const CheckpointInfo& info) {
  impl_->prepare_save({model, &optimizer}, info);
}

void CheckpointManager::prepare_save(const torch::nn::Module& model,
                                     const torch::optim::Optimizer& optimizer,
                                     SchedulerRef scheduler, const CheckpointInfo& info) {
  impl_->prepare_save({model, &optimizer, &scheduler}, info);
}

void CheckpointManager::poll() { impl_->saver.poll(); }
void CheckpointManager::wait() { impl_->saver.wait(); }

CheckpointContext CheckpointManager::load_checkpoint(torch::nn::Module& model) {
  return impl_->load({model});
}

CheckpointContext CheckpointManager::load_checkpoint(torch::nn::Module& model,
                                                     torch::optim::Optimizer& optimizer) {
  return impl_->load({model, &optimizer});
}

CheckpointContext CheckpointManager::load_checkpoint(torch::nn::Module& model,
                                                     torch::optim::Optimizer& optimizer,
                                                     SchedulerRef scheduler) {
  return impl_->load({model, &optimizer, &scheduler});
}

PendingLoad CheckpointManager::load_checkpoint_async(torch::nn::Module& model) {
  return PendingLoad(impl_->load_later({model}, std::nullopt));
}

PendingLoad CheckpointManager::load_checkpoint_async(torch::nn::Module& model,
                                                     torch::optim::Optimizer& optimizer) {
  return PendingLoad(impl_->load_later({model, &optimizer}, std::nullopt));
}

PendingLoad CheckpointManager::load_checkpoint_async(torch::nn::Module& model,
                                                     torch::optim::Optimizer& optimizer,
                                                     SchedulerRef scheduler) {
  return PendingLoad(impl_->load_later({model, &optimizer}, scheduler));
}

std::vector<ModifierReport> CheckpointManager::prepare_model(torch::nn::Module& model) {
  return impl_->prepare_model(model);
}

LoraAdapters CheckpointManager::adapters() const { return impl_->adapters; }

void CheckpointManager::export_model(const std::filesystem::path& path,
                                     const torch::nn::Module& model, ModelExport what,
                                     const CheckpointInfo& info) {
  const Collected collected = impl_->collect_for_export(model, what, info);
  impl_->exporter->save(path, collected.state);
}

void CheckpointManager::prepare_export(const std::filesystem::path& path,
                                       const torch::nn::Module& model, ModelExport what,
                                       const CheckpointInfo& info) {
  const Collected collected = impl_->collect_for_export(model, what, info);
  impl_->exporter->prepare_layout(path, collected.state);
}

void CheckpointManager::add_state(const std::string& name, Stateful& state) {
  check_state_name(name);
  if (!impl_->states.emplace(name, &state).second) {
    fail(Errc::usage, "there is a state '{}' already; give each its own name", name);
  }
}

void CheckpointManager::remove_state(const std::string& name) { impl_->states.erase(name); }

void CheckpointManager::set_resume(const std::filesystem::path& path) {
  resume_from(path, impl_->config);
}

const std::vector<StageTrace>& CheckpointManager::last_trace() const {
  return impl_->trace.stages();
}

std::optional<std::filesystem::path> CheckpointManager::newest_checkpoint() const {
  return share_newest(impl_->comm, impl_->config.save.dir);
}

const Comm& CheckpointManager::comm() const { return impl_->comm; }
const Config& CheckpointManager::config() const { return impl_->config; }

CheckpointContext detail::ManagerAccess::load(CheckpointManager& manager, torch::nn::Module& model,
                                              const Source& source, const LoadingConfig& loading) {
  CheckpointManager::Impl& impl = *manager.impl_;
  const Config configured = impl.config;
  const auto restore = [&] { impl.config = configured; };
  impl.config.source = source;
  impl.config.loading = loading;
  impl.config.modifiers.clear();
  try {
    CheckpointContext context = impl.load({model});
    restore();
    return context;
  } catch (...) {
    restore();
    throw;
  }
}

void CheckpointManager::set_source(const LocalSource& source) { impl_->config.source = source; }
void CheckpointManager::set_source(const Source& source) { impl_->config.source = source; }
void CheckpointManager::close() {
  impl_->saver.close();
  impl_->comm.close();
}

}  // namespace cairn
