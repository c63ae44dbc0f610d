#include "torch/settings.hpp"

#include <cstdio>
#include <string>
#include <vector>

#include "base/throw.hpp"
#include "mpi/same.hpp"
#include "pipeline/config_document.hpp"
#include "pipeline/document.hpp"

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

LoadOptions load_options(const Config& config, const LoadingConfig& loading) {
  LoadOptions load;
  load.engine = config.save.engine;
  load.transfer = config.save.transfer;
  load.mpio = config.save.mpio;
  load.cast = loading.cast;
  load.verify = loading.verify;
  load.broadcast = loading.broadcast;
  return load;
}

void warn_of_idle_keys(const SaveConfig& save) {
  for (const std::string& text : idle_keys(save)) {
    fmt::print(stderr, "cairn: warning: {}\n", text);
  }
}

void resume_from(const std::filesystem::path& path, Config& config) {
  config.source = LocalSource{path};
  const LoadingConfig begun = config.loading.value_or(LoadingConfig{});
  config.loading = LoadingConfig{.cast = begun.cast,
                                 .verify = begun.verify,
                                 .broadcast = begun.broadcast,
                                 .keep_copy = begun.keep_copy,
                                 .rescale_lr = begun.rescale_lr};
  std::erase_if(config.modifiers, [](const Modifier& modifier) {
    return std::holds_alternative<ResetModifier>(modifier) ||
           std::holds_alternative<CustomModifier>(modifier);
  });
}

void compare(const Comm& comm, std::string_view step, const Config& config, const States& states) {
  std::vector<Argument> arguments;
  agree(comm, step, [&] {
    for (const auto& [subject, hash] : parts_of(config)) arguments.push_back({subject, hash});
    arguments.push_back({"names of the added states", hash_of(states)});
  });
  require_same(comm, step, arguments);
}

Config settled(const Comm& comm, Config config) {
  agree(comm, "configuration", [&] {
    settle(config);
    check(config, "configuration");
  });
  compare(comm, "configuration", config, {});
  return config;
}

}  // namespace cairn::detail
