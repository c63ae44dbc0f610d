#include <bit>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "cairn/source.hpp"
#include "cairn/torch.hpp"
#include "mpi/same.hpp"
#include "torch/agree.hpp"
#include "torch/collect.hpp"
#include "torch/restore.hpp"

namespace cairn {

using namespace detail;

namespace {

SaveOptions save_options(const Config& config, const ManagerOptions& options) {
  SaveOptions save;
  save.engine = config.save.engine;
  save.transfer = config.save.transfer;
  save.durable = config.save.durable;
  save.statistics = config.save.statistics;
  save.replica_check = config.save.replica_check;
  save.progress = options.progress;
  save.async = config.save.async.value_or(AsyncOptions{});
  return save;
}

/// What a configuration can say and this manager does not act on yet must not pass in silence.
void refuse_what_is_not_done(const Config& config) {
  if (!config.modifiers.empty()) {
    fail(Errc::unsupported, "model_modifier is not supported; remove it");
  }
}

/// What is equal for equal settings of a load.
std::uint64_t hash_of(const LoadingConfig& loading) {
  Digester digester;
  digester.update(static_cast<std::uint64_t>(loading.type));
  for (const bool flag :
       {loading.strict, loading.skip_mismatched, loading.freeze_loaded, loading.cast}) {
    digester.update(static_cast<std::uint64_t>(flag));
  }
  digester.update(std::bit_cast<std::uint64_t>(loading.min_match));
  digester.update(static_cast<std::uint64_t>(loading.rename.size()));
  for (const RenameRule& rule : loading.rename) {
    digester.update(std::string_view(rule.from));
    digester.update(std::string_view(rule.to));
    digester.update(static_cast<std::uint64_t>(rule.regex));
  }
  for (const std::string& layer : loading.reset_layers) digester.update(std::string_view(layer));
  return digester.value();
}

}  // namespace

struct CheckpointManager::Impl {
  Comm comm;
  Config config;
  ManagerOptions options;
  Saver saver;  // refers to comm, so an Impl stays where it is

  Impl(MPI_Comm parent, Config c, ManagerOptions o)
      : comm(parent, o.deadline),
        config(std::move(c)),
        options(std::move(o)),
        saver(comm, save_options(config, options)) {}

  /// Gathers the state and hands it to `save`, one of the saver's members. Collective.
  template <class Save>
  std::filesystem::path save(const TrainerView& trainer, const CheckpointInfo& info, Save&& save) {
    Collected collected;
    std::filesystem::path path;
    agree_torch(comm, "save: collect state", [&] {
      if (config.save.dir.empty()) {
        fail(Errc::usage, "no directory to save to is configured; set save.dir");
      }
      collected = collect(trainer, options, info);
      path = checkpoint_path(config.save.dir, info.global_step);
    });
    collected.state.documents.merge(merge_documents(comm, collected.documents));
    save(path, collected.state);
    return path;
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

  CheckpointContext load(const TrainerState& trainer) {
    agree(comm, "load: source", [&] {
      if (!config.source) {
        fail(Errc::usage,
             "no checkpoint to load is configured; set checkpoint.source, or call set_source");
      }
      refuse_what_is_not_done(config);
    });
    RestoreSettings settings{options, config.loading.value_or(LoadingConfig{}), {}};
    require_same(comm, "load: source",
                 std::vector<Argument>{{"checkpoint.loading", hash_of(settings.loading)}});
    settings.load.engine = config.save.engine;
    settings.load.transfer = config.save.transfer;
    settings.load.cast = settings.loading.cast;
    const auto path = resolve_source(comm, *config.source, source_settings(config));
    const Manifest manifest = open_checkpoint(comm, path);
    return restore(comm, manifest, trainer, settings);
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

std::optional<std::filesystem::path> CheckpointManager::newest_checkpoint() const {
  std::string path;
  agree(impl_->comm, "newest checkpoint", [&] {
    if (!impl_->comm.is_root()) return;
    if (const auto newest = cairn::newest_checkpoint(impl_->config.save.dir))
      path = newest->string();
  });
  impl_->comm.broadcast(path);
  if (path.empty()) return std::nullopt;
  return path;
}

const Comm& CheckpointManager::comm() const { return impl_->comm; }
const Config& CheckpointManager::config() const { return impl_->config; }
void CheckpointManager::set_source(const LocalSource& source) { impl_->config.source = source; }
void CheckpointManager::set_source(const Source& source) { impl_->config.source = source; }
void CheckpointManager::close() {
  impl_->saver.close();
  impl_->comm.close();
}

}  // namespace cairn
