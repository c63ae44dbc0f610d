#include "base/throw.hpp"
#include "cairn/torch.hpp"
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
  save.progress = options.progress;
  return save;
}

/// Rank 0 finds the checkpoint that the source means. Collective.
std::filesystem::path resolve(const Comm& comm, const Config& config) {
  std::string path;
  agree(comm, "load: source", [&] {
    if (!config.source) {
      fail(Errc::usage,
           "no checkpoint to load is configured; set checkpoint.source, or call set_source");
    }
    path = config.source->path.string();
    if (!comm.is_root() || !std::filesystem::is_directory(path)) return;
    const auto newest = newest_checkpoint(path);
    if (!newest) fail(Errc::not_found, "'{}' holds no committed checkpoint", path);
    path = newest->string();
  });
  comm.broadcast(path);
  return path;
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

  std::filesystem::path save(const TrainerView& trainer, const CheckpointInfo& info) {
    Collected collected;
    agree_torch(comm, "save: collect state", [&] {
      if (config.save.dir.empty()) {
        fail(Errc::usage, "no directory to save to is configured; set save.dir");
      }
      collected = collect(trainer, options, info);
    });
    merge_documents(comm, collected.documents);
    auto& documents = collected.state.documents;
    documents["model"] = collected.documents.model.dump();
    if (collected.documents.optimizer) {
      documents["optimizer"] = collected.documents.optimizer->dump();
    }
    auto path = checkpoint_path(config.save.dir, info.global_step);
    saver.save(path, collected.state);
    return path;
  }

  CheckpointContext load(const TrainerState& trainer) {
    const auto path = resolve(comm, config);
    const Manifest manifest = open_checkpoint(comm, path);
    LoadOptions load;
    load.engine = config.save.engine;
    load.transfer = config.save.transfer;
    return restore(comm, manifest, trainer, options, load);
  }
};

CheckpointManager::CheckpointManager(MPI_Comm comm, Config config, ManagerOptions options)
    : impl_(std::make_unique<Impl>(comm, std::move(config), std::move(options))) {}
CheckpointManager::~CheckpointManager() = default;
CheckpointManager::CheckpointManager(CheckpointManager&&) noexcept = default;
CheckpointManager& CheckpointManager::operator=(CheckpointManager&&) noexcept = default;

std::filesystem::path CheckpointManager::save_checkpoint(const torch::nn::Module& model,
                                                         const CheckpointInfo& info) {
  return impl_->save({model}, info);
}

std::filesystem::path CheckpointManager::save_checkpoint(const torch::nn::Module& model,
                                                         const torch::optim::Optimizer& optimizer,
                                                         const CheckpointInfo& info) {
  return impl_->save({model, &optimizer}, info);
}

std::filesystem::path CheckpointManager::save_checkpoint(const torch::nn::Module& model,
                                                         const torch::optim::Optimizer& optimizer,
                                                         SchedulerRef scheduler,
                                                         const CheckpointInfo& info) {
  return impl_->save({model, &optimizer, &scheduler}, info);
}

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
void CheckpointManager::close() { impl_->comm.close(); }

}  // namespace cairn
