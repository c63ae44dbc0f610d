#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cairn/comm.hpp"
#include "cairn/config.hpp"
#include "cairn/context.hpp"
#include "cairn/export.hpp"
#include "cairn/modifiers.hpp"
#include "cairn/placement.hpp"
#include "cairn/state.hpp"
#include "cairn/version.hpp"

namespace torch::nn {
class Module;
}
namespace torch::optim {
class LRScheduler;
class Optimizer;
}  // namespace torch::optim

namespace cairn {

namespace detail {
struct ManagerAccess;
}

/// Where this rank's `tensor` lies in the global one. `name` is the tensor's name in the
/// checkpoint: `model/<fqn>` or `optimizer/<parameter fqn>/<slot>`. Called for every tensor at
/// every save and load; the answer may differ between ranks only in the box. `tensor` may be empty.
using PlacementPolicy = std::function<Placement(const std::string& name, const at::Tensor& tensor)>;

/// A learning-rate scheduler of the user's own, saved and restored beside the optimizer.
class CAIRN_EXPORT Scheduler {
 public:
  virtual ~Scheduler();
  /// JSON text, in UTF-8. Local; rank 0's is saved.
  virtual std::string state() const = 0;
  /// Takes what state() gave. Local; called on every rank.
  virtual void load(const std::string& state) = 0;
};

/// Either kind of scheduler; made implicitly. Lifetime: that of what it is passed to.
class CAIRN_EXPORT SchedulerRef {
 public:
  SchedulerRef(torch::optim::LRScheduler& scheduler) : torch_(&scheduler) {}  // NOLINT
  SchedulerRef(Scheduler& scheduler) : own_(&scheduler) {}                    // NOLINT

  torch::optim::LRScheduler* torch_scheduler() const { return torch_; }
  Scheduler* own_scheduler() const { return own_; }

 private:
  torch::optim::LRScheduler* torch_ = nullptr;
  Scheduler* own_ = nullptr;
};

/// A tensor that the optimizer steps, under the name of the model's parameter it belongs to.
struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

/// What CheckpointManager::export_model writes.
enum class ModelExport : std::uint8_t {
  adapters,  ///< A and B alone
  merged,    ///< the model without adapters, which computes the same
  weights,   ///< the model as it is
  averaged,  ///< the model with the averages of its parameters (cairn/average.hpp) in their place
};

struct ManagerOptions {
  /// Absent: every tensor is replicated.
  PlacementPolicy placement{};
  /// The optimizer's parameters by name, where they are not the model's own (for example flat ZeRO
  /// shards). Absent: the optimizer's parameters are found among the model's by identity.
  std::vector<NamedTensor> optimizer_parameters{};
  /// Deadline of every wait for another rank. Must exceed the longest time by which one rank's
  /// reading or writing may outlast another's.
  std::chrono::milliseconds deadline = Comm::kDefaultDeadline;
  /// Observer of a save; see SaveOptions::progress.
  std::function<void(const SaveProgress&)> progress{};
};

/// A load that has begun: rank 0 may be fetching the checkpoint while the program sets up other
/// things. Lifetime: at most that of the manager; what was given to load_checkpoint_async must live
/// until get(). The destructor does not communicate: it calls rank 0's fetch off, which may take 5
/// s, and the load has never been; what was fetched stays in the cache, parts of a file do not.
class CAIRN_EXPORT PendingLoad {
 public:
  ~PendingLoad();
  PendingLoad(PendingLoad&&) noexcept;
  PendingLoad& operator=(PendingLoad&&) noexcept;

  /// Whether get() would not have to wait for the source. Only rank 0 knows; others say true.
  /// Local.
  bool is_ready() const;
  /// Does what load_checkpoint does, and waits for the source first. Once. Collective; where
  /// several loads are pending, in the same order on all ranks. Errors: those of load_checkpoint,
  /// those of the fetch among them; usage (a second call).
  CheckpointContext get();

 private:
  friend class CheckpointManager;
  struct Impl;
  explicit PendingLoad(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Saves and loads the state of a trainer: module, optimizer, scheduler, progress and CPU random
/// state. Every member but the constructor's arguments is used by all ranks together. MPI must
/// outlive it. Ranks may hold different tensors (pipeline stages, optimizers split by parameter):
/// what counts is that together they hold, and ask for, the whole checkpoint.
class CAIRN_EXPORT CheckpointManager {
 public:
  /// Collective on `comm`. A `config` that the program filled in is held to the rules of files.
  /// Errors: usage; mismatch (another `config` on another rank); timeout.
  CheckpointManager(MPI_Comm comm, Config config, ManagerOptions options = {});
  ~CheckpointManager();
  CheckpointManager(CheckpointManager&&) noexcept;
  CheckpointManager& operator=(CheckpointManager&&) noexcept;

  /// Writes `<save.dir>/step-<global_step>.h5` and returns its path. Collective. On return the
  /// checkpoint is published, and durable unless `save.durable` is off. The arguments are only
  /// read. Errors: usage, mismatch, unsupported (an optimizer that cairn does not know), io,
  /// timeout.
  std::filesystem::path save_checkpoint(const torch::nn::Module& model,
                                        const CheckpointInfo& info = {});
  std::filesystem::path save_checkpoint(const torch::nn::Module& model,
                                        const torch::optim::Optimizer& optimizer,
                                        const CheckpointInfo& info = {});
  std::filesystem::path save_checkpoint(const torch::nn::Module& model,
                                        const torch::optim::Optimizer& optimizer,
                                        SchedulerRef scheduler, const CheckpointInfo& info = {});

  /// The same in the background (Saver::save_async): returns when the state is copied, so that the
  /// next optimizer step may change it. How it works is `save.async`. Collective. Errors: those of
  /// save_checkpoint, and those of earlier saves.
  AsyncSave save_checkpoint_async(const torch::nn::Module& model, const CheckpointInfo& info = {});
  AsyncSave save_checkpoint_async(const torch::nn::Module& model,
                                  const torch::optim::Optimizer& optimizer,
                                  const CheckpointInfo& info = {});
  AsyncSave save_checkpoint_async(const torch::nn::Module& model,
                                  const torch::optim::Optimizer& optimizer, SchedulerRef scheduler,
                                  const CheckpointInfo& info = {});
  /// Does ahead what only the first save of a structure has to do, so that it takes no longer than
  /// later ones: its layout, and with `save.async` the memory for the copies. The structure is that
  /// of the model and the optimizer's state, which most optimizers make in their first step: call
  /// it after that. Writes nothing that stays. Collective. Errors: those of save_checkpoint.
  void prepare_save(const torch::nn::Module& model, const CheckpointInfo& info = {});
  void prepare_save(const torch::nn::Module& model, const torch::optim::Optimizer& optimizer,
                    const CheckpointInfo& info = {});
  void prepare_save(const torch::nn::Module& model, const torch::optim::Optimizer& optimizer,
                    SchedulerRef scheduler, const CheckpointInfo& info = {});
  /// Call it once a step: takes saves in the background further where MPI allows one thread only,
  /// and tells of their failures. Collective. Errors: those of save_checkpoint.
  void poll();
  /// Returns when every save in the background has ended. Collective. Errors: those of
  /// save_checkpoint.
  void wait();

  /// Applies what of the configured modifiers decides which tensors the model has, and which of
  /// them are trained (freeze, lora, cast), so that an optimizer can be built over them;
  /// load_checkpoint finds it done. Needed where an optimizer's state is loaded for a model with
  /// adapters. Collective. On Error nothing has changed. Errors: not_found, usage, unsupported,
  /// mismatch.
  std::vector<ModifierReport> prepare_model(torch::nn::Module& model);
  /// The adapters that modifiers made. Call its apply() before each forward pass. Local.
  LoraAdapters adapters() const;
  /// Writes a part or a form of the model to `path`, without what belongs to a trainer. Collective.
  /// Errors: usage (no adapters, merged ones, no averages), mismatch, io, timeout.
  void export_model(const std::filesystem::path& path, const torch::nn::Module& model,
                    ModelExport what, const CheckpointInfo& info = {});
  /// Makes the layout of such an export ahead, so that export_model() only moves bytes as long as
  /// no export of another form comes between. `path` names a file in the directory of the exports
  /// to come. Writes nothing that stays. Collective. Errors: those of export_model().
  void prepare_export(const std::filesystem::path& path, const torch::nn::Module& model,
                      ModelExport what, const CheckpointInfo& info = {});

  /// Restores from the configured source what `checkpoint.loading` says (everything that is given,
  /// where it is absent), then applies the configured modifiers in their order. Collective. Any
  /// number of ranks and any placement may load what any other saved. On Error nothing that was
  /// given has changed, with one exception: an Error of the step "load: move" (a disk fails,
  /// another program cuts the file, or pipeline.timeout is over, after every digest was found
  /// right; with VerifyWhen::loaded also a wrong digest) or "load: finish" (a module that resets
  /// itself throws, or there is no memory for what adapters compute with) leaves tensors filled, or
  /// partly, and says so. (Not with LoadingConfig::keep_copy, and not where modifiers of the
  /// program's own are configured: these cost a copy, which is put back.) Errors: usage (no source;
  /// a fork into the directory of its parent), not_found, mismatch (what the strategy refuses;
  /// settings that differ between ranks), corrupt, unsupported, unsafe (a file that would do harm),
  /// io, timeout.
  CheckpointContext load_checkpoint(torch::nn::Module& model);
  CheckpointContext load_checkpoint(torch::nn::Module& model, torch::optim::Optimizer& optimizer);
  CheckpointContext load_checkpoint(torch::nn::Module& model, torch::optim::Optimizer& optimizer,
                                    SchedulerRef scheduler);

  /// The same in two parts: begins to fetch the configured source on a thread of rank 0's, unless
  /// `pipeline.async_execution` is off, and leaves all else to PendingLoad::get(). The model is not
  /// looked at before. Local, but every rank calls it: nobody waits, and what goes wrong get()
  /// tells. The program's own part in between does not count for `pipeline.timeout`.
  PendingLoad load_checkpoint_async(torch::nn::Module& model);
  PendingLoad load_checkpoint_async(torch::nn::Module& model, torch::optim::Optimizer& optimizer);
  PendingLoad load_checkpoint_async(torch::nn::Module& model, torch::optim::Optimizer& optimizer,
                                    SchedulerRef scheduler);

  /// From now on `state` is part of every checkpoint, and a warm start gives it back; it must live
  /// until remove_state. Every rank adds the same names. Local. Errors: usage (a name that is
  /// taken, or can't be one).
  void add_state(const std::string& name, Stateful& state);
  /// Local.
  void remove_state(const std::string& name);

  /// The stages of the last load as this rank saw them, also where it failed. Lifetime: until the
  /// next load. Local.
  const std::vector<StageTrace>& last_trace() const;

  /// The newest committed checkpoint of `save.dir`, on all ranks. Collective. Errors: io, timeout.
  std::optional<std::filesystem::path> newest_checkpoint() const;

  /// Lifetime: that of the manager. Local.
  const Comm& comm() const;
  /// With what it leaves to other settings filled in. Lifetime: that of the manager. Local.
  const Config& config() const;
  /// Replaces the source of later loads; every rank gives the same. Local.
  void set_source(const LocalSource& source);
  void set_source(const Source& source);
  /// Later loads continue the run from `path`, its directory or a checkpoint of its own: a warm
  /// start whatever `checkpoint.loading` says of the run's beginning, and without the modifiers
  /// that change values (reset, registered ones). Every rank gives the same. Local.
  void set_resume(const std::filesystem::path& path);
  /// Waits for saves in the background and frees the communicators. Collective; optional without
  /// such saves. Errors: those of save_checkpoint.
  void close();

 private:
  friend struct detail::ManagerAccess;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cairn

// Until 1.2, where they have to be asked for; see there.
#if CAIRN_VERSION_MAJOR == 0 || (CAIRN_VERSION_MAJOR == 1 && CAIRN_VERSION_MINOR < 2)
#include "cairn/legacy.hpp"
#endif
