#include "cairn/legacy.hpp"

#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <tuple>

#include "base/throw.hpp"
#include "cairn/torch.hpp"
#include "torch/legacy.hpp"

namespace cairn::detail {
namespace {

/// A path as configurations have it: quoted, and without interpolations.
std::string quoted(const std::filesystem::path& path) {
  std::string text = path.string();
  for (std::size_t at = text.find("${"); at != std::string::npos; at = text.find("${", at + 3)) {
    text.insert(at, 1, '\\');
  }
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// Whether this place of the program has not been told of yet. The one thing that is remembered for
/// a whole process: the calls have no object in common. Thread-safe.
bool is_new(const LegacyCall& call) {
  static std::mutex mutex;
  static std::set<std::tuple<std::string, std::string, unsigned, unsigned>> known;
  const std::lock_guard lock(mutex);
  return known
      .emplace(call.function, call.where.file_name(), call.where.line(), call.where.column())
      .second;
}

void warn(const Comm& comm, const LegacyCall& call, const std::filesystem::path& path,
          const LoadingConfig& loading) {
  if (!call.warns || !is_new(call) || !comm.is_root()) return;
  fmt::print(stderr, "{}", legacy_warning(call, path, loading));
}

}  // namespace

LoadingConfig legacy_weights_only(bool strict) {
  LoadingConfig loading;
  loading.type = LoadingType::weights_only;
  loading.strict = strict;
  loading.cast = true;  // PyTorch's load_state_dict copies into the dtype that is there
  return loading;
}

LoadingConfig legacy_transfer_learning(bool skip_mismatched) {
  LoadingConfig loading;
  loading.type = LoadingType::transfer_learning;
  loading.strict = false;
  loading.skip_mismatched = skip_mismatched;
  loading.cast = true;
  return loading;
}

std::string legacy_replacement(const std::filesystem::path& path, const LoadingConfig& loading) {
  const bool transfer = loading.type == LoadingType::transfer_learning;
  return fmt::format(
      "checkpoint:\n"
      "  source: {{type: local, path: {}}}\n"
      "  loading: {{type: {}, strict: {},{} cast: {}}}\n",
      quoted(path), to_string(loading.type), loading.strict,
      transfer ? fmt::format(" skip_mismatched: {},", loading.skip_mismatched) : "", loading.cast);
}

std::string legacy_warning(const LegacyCall& call, const std::filesystem::path& path,
                           const LoadingConfig& loading) {
  const std::string place = fmt::format("{}:{}", call.where.file_name(), call.where.line());
  return fmt::format(
      "cairn: warning: {}: {} is deprecated since cairn 1.1 and goes with 2.0. Paste into the "
      "configuration, checkpoint.yaml,\n\n{}\nand in the place of the call\n\n"
      "cairn::CheckpointManager manager(MPI_COMM_WORLD, "
      "cairn::Config::from_file(\"checkpoint.yaml\"));\n"
      "cairn::CheckpointContext context = manager.load_checkpoint(model);\n\n"
      "docs/migration.md, \"Legacy calls\", has more. This place is not told of again.\n",
      place, call.function, legacy_replacement(path, loading));
}

CheckpointContext legacy_load(CheckpointManager& manager, torch::nn::Module& model,
                              const std::filesystem::path& path, const LoadingConfig& loading,
                              const LegacyCall& call) {
  warn(manager.comm(), call, path, loading);
  return ManagerAccess::load(manager, model, LocalSource{path}, loading);
}

CheckpointContext legacy_load(MPI_Comm comm, torch::nn::Module& model,
                              const std::filesystem::path& path, const LoadingConfig& loading,
                              const LegacyCall& call) {
  CheckpointManager manager(comm, Config{});
  try {
    CheckpointContext context = legacy_load(manager, model, path, loading, call);
    manager.close();
    return context;
  } catch (const Error& error) {
    if (error.rank() != Error::kLocal && error.code() != Errc::timeout) manager.close();
    throw;
  }
}

}  // namespace cairn::detail
