#include "torch/settings.hpp"

#include <algorithm>
#include <bit>
#include <cstdio>

#include "base/digest.hpp"
#include "base/throw.hpp"

namespace cairn::detail {

SaveOptions save_options(const Config& config, const ManagerOptions& options) {
  SaveOptions save;
  save.engine = config.save.engine;
  save.transfer = config.save.transfer;
  save.mpio = config.save.mpio;
  save.durable = config.save.durable;
  save.retention = config.save.retention;
  save.statistics = config.save.statistics;
  save.replica_check = config.save.replica_check;
  save.delta = config.save.delta;
  save.progress = options.progress;
  save.async = config.save.async.value_or(AsyncOptions{});
  return save;
}

void warn_of_idle_keys(const SaveConfig& save) {
  const bool numbers =
      std::any_of(save.triggers.begin(), save.triggers.end(),
                  [](const SaveTrigger& trigger) { return trigger.num_models_saved >= 0; });
  if (numbers && save.retention.keep_last == 0) {
    fmt::print(stderr,
               "cairn: warning: save.triggers[].num_models_saved is not obeyed so far, and all "
               "checkpoints stay; save.keep_last limits their number\n");
  }
  if (!save.name_templates.empty()) {
    fmt::print(stderr,
               "cairn: warning: save.name_templates is not obeyed so far: checkpoints are called "
               "by their step\n");
  }
}

std::uint64_t hash_of(const LoadingConfig& loading) {
  Digester digester;
  digester.update(static_cast<std::uint64_t>(loading.type));
  for (const bool flag : {loading.strict, loading.skip_mismatched, loading.freeze_loaded,
                          loading.cast, loading.reset_progress}) {
    digester.update(static_cast<std::uint64_t>(flag));
  }
  digester.update(std::bit_cast<std::uint64_t>(loading.min_match));
  digester.update(static_cast<std::uint64_t>(loading.verify));
  digester.update(static_cast<std::uint64_t>(loading.broadcast));
  digester.update(static_cast<std::uint64_t>(loading.rescale_lr));
  digester.update(static_cast<std::uint64_t>(loading.rename.size()));
  for (const RenameRule& rule : loading.rename) {
    digester.update(std::string_view(rule.from));
    digester.update(std::string_view(rule.to));
    digester.update(static_cast<std::uint64_t>(rule.regex));
  }
  for (const std::string& layer : loading.reset_layers) digester.update(std::string_view(layer));
  return digester.value();
}

}  // namespace cairn::detail
