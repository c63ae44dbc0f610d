#pragma once

#include "cairn/version.hpp"

// The functions by which the legacy system loaded, for programs that still call them. How long they
// are there is decided by the version above (docs/migration.md, "Legacy calls"):
//   to 1.0  cairn/torch.hpp has them, and nothing warns
//   1.1     cairn/torch.hpp has them; compilers warn, and the program once for each place
//   1.2     this header alone has them; the same warnings
//   2.0     they are gone
#if CAIRN_VERSION_MAJOR >= 2
#error "cairn 2.0 has no legacy functions; docs/migration.md, 'Legacy calls', has what to paste"
#endif

#include <filesystem>
#include <source_location>

#include "cairn/comm.hpp"
#include "cairn/context.hpp"
#include "cairn/export.hpp"

#if CAIRN_VERSION_MAJOR >= 1 && CAIRN_VERSION_MINOR >= 1
#define CAIRN_LEGACY(replacement) [[deprecated(replacement)]]
#else
#define CAIRN_LEGACY(replacement)
#endif

namespace torch::nn {
class Module;
}

namespace cairn {

class CheckpointManager;

namespace detail {

/// Where a legacy function was called, by a program that was compiled with this header.
struct LegacyCall {
  const char* function;
  std::source_location where;
  bool warns = CAIRN_VERSION_MAJOR >= 1 && CAIRN_VERSION_MINOR >= 1;
};

/// What `load_weights_only` and `transfer_learning` of the legacy system mean in cairn. Local.
CAIRN_EXPORT LoadingConfig legacy_weights_only(bool strict);
CAIRN_EXPORT LoadingConfig legacy_transfer_learning(bool skip_mismatched);
/// With a manager of its own, that saves nothing. Collective.
CAIRN_EXPORT CheckpointContext legacy_load(MPI_Comm comm, torch::nn::Module& model,
                                           const std::filesystem::path& path,
                                           const LoadingConfig& loading, const LegacyCall& call);
CAIRN_EXPORT CheckpointContext legacy_load(CheckpointManager& manager, torch::nn::Module& model,
                                           const std::filesystem::path& path,
                                           const LoadingConfig& loading, const LegacyCall& call);

}  // namespace detail

/// Loads the weights of `path` (a checkpoint of any format, or a run's directory) into `model`:
/// names that only one side has are errors where `strict`; tensors of another shape always are;
/// dtypes are converted. Optimizers, schedulers and random state stay; the context has the
/// checkpoint's epoch and step. Two things are as everywhere in cairn, not as they were: a
/// checkpoint of which nothing fits the model is an Error (mismatch), because the legacy system
/// went on with random weights then; and an Error leaves the model as it was. Collective.
/// Errors: not_found, mismatch, corrupt, unsupported, io, timeout.
CAIRN_LEGACY("set checkpoint.loading {type: weights_only}, and call manager.load_checkpoint(model)")
inline CheckpointContext load_weights_only(
    MPI_Comm comm, torch::nn::Module& model, const std::filesystem::path& path, bool strict = true,
    std::source_location where = std::source_location::current()) {
  return detail::legacy_load(comm, model, path, detail::legacy_weights_only(strict),
                             {"load_weights_only", where});
}

/// Loads those tensors of `path` that the model has in the same shape. Tensors of another shape
/// keep their values, or are errors where `skip_mismatched` is false; names that only one side has
/// never are. LoadReport tells what became of each. All else as load_weights_only. Collective.
CAIRN_LEGACY(
    "set checkpoint.loading {type: transfer_learning}, and call "
    "manager.load_checkpoint(model)")
inline CheckpointContext transfer_learning(
    MPI_Comm comm, torch::nn::Module& model, const std::filesystem::path& path,
    bool skip_mismatched = true, std::source_location where = std::source_location::current()) {
  return detail::legacy_load(comm, model, path, detail::legacy_transfer_learning(skip_mismatched),
                             {"transfer_learning", where});
}

/// The same by a manager, whose saves then tell what they began with (CheckpointContext::run). Its
/// source, strategy and modifiers take no part in these calls. Lifetime: at most the manager's.
class LegacyAdapter {
 public:
  explicit LegacyAdapter(CheckpointManager& manager) : manager_(&manager) {}

  /// As the functions of these names. Collective.
  CAIRN_LEGACY(
      "set checkpoint.loading {type: weights_only}, and call "
      "manager.load_checkpoint(model)")
  CheckpointContext load_weights_only(
      torch::nn::Module& model, const std::filesystem::path& path, bool strict = true,
      std::source_location where = std::source_location::current()) const {
    return detail::legacy_load(*manager_, model, path, detail::legacy_weights_only(strict),
                               {"LegacyAdapter::load_weights_only", where});
  }
  CAIRN_LEGACY(
      "set checkpoint.loading {type: transfer_learning}, and call "
      "manager.load_checkpoint(model)")
  CheckpointContext transfer_learning(
      torch::nn::Module& model, const std::filesystem::path& path, bool skip_mismatched = true,
      std::source_location where = std::source_location::current()) const {
    return detail::legacy_load(*manager_, model, path,
                               detail::legacy_transfer_learning(skip_mismatched),
                               {"LegacyAdapter::transfer_learning", where});
  }

 private:
  CheckpointManager* manager_;
};

}  // namespace cairn

#undef CAIRN_LEGACY
