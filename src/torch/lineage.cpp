#include "torch/lineage.hpp"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <random>
#include <system_error>
#include <variant>

#include "cairn/source.hpp"
#include "sources/local.hpp"
#include "torch/documents.hpp"
#include "torch/text.hpp"

namespace cairn::detail {
namespace {

const RunSource* run_source(const Config& config) {
  return config.source ? std::get_if<RunSource>(&*config.source) : nullptr;
}

/// The id that the configuration gives to the run.
std::optional<std::string> own_run_id(const Config& config) {
  const std::string& id = config.lineage.resume_run_id;
  return id.empty() ? std::nullopt : std::optional(id);
}

bool is_fork(const Config& config) {
  const auto* source = run_source(config);
  return !config.lineage.parent_run_id.empty() || (source != nullptr && source->fork);
}

/// Whether the run that a checkpoint is of goes on: all of it is taken, and nothing says that it is
/// another run from here.
bool continues(const Config& config) {
  return !is_fork(config) &&
         config.loading.value_or(LoadingConfig{}).type == LoadingType::warm_start;
}

}  // namespace

std::string new_uuid() {
  std::random_device device;
  const auto half = [&] { return std::uint64_t{device()} << 32 | device(); };
  const std::uint64_t high = (half() & ~0xf000ULL) | 0x4000ULL;
  const std::uint64_t low = (half() & ~(0x3ULL << 62)) | 0x2ULL << 62;
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, high >> 16 & 0xffff,
                     high & 0xffff, low >> 48, low & 0xffffffffffffULL);
}

std::string lineage_document(const Lineage& lineage) {
  return to_text({{"run_id", lineage.run_id},
                  {"uuid", lineage.uuid},
                  {"parent_uuid", lineage.parent_uuid},
                  {"parent_run_id", lineage.parent_run_id},
                  {"fork", lineage.fork}});
}

Lineage read_lineage(const Manifest& manifest) {
  Lineage lineage;
  const auto document = find_document(manifest, "lineage");
  if (!document) return lineage;
  reading_document(manifest, "lineage", [&] {
    lineage.run_id = document->at("run_id").get<std::string>();
    lineage.uuid = document->at("uuid").get<std::string>();
    lineage.parent_uuid = document->at("parent_uuid").get<std::string>();
    lineage.parent_run_id = document->value("parent_run_id", std::string());
    lineage.fork = document->at("fork").get<bool>();
  });
  return lineage;
}

Lineage begin_run(Config& config, const std::string& fresh) {
  Lineage run;
  run.run_id = own_run_id(config).value_or(fresh);
  run.parent_run_id = config.lineage.parent_run_id;
  if (const auto* source = run_source(config); source != nullptr) {
    if (run.parent_run_id.empty() && source->fork) run.parent_run_id = source->run_id;
    if (!own_run_id(config) && continues(config)) run.run_id = source->run_id;
  }
  run.fork = is_fork(config);
  if (config.save.dir.empty() && !config.save.root.empty()) {
    config.save.dir = config.save.root / run.run_id;
  }
  return run;
}

Lineage descend(const Lineage& run, const CheckpointContext& loaded) {
  const Config& config = loaded.config;
  Lineage lineage = run;
  lineage.parent_uuid = loaded.lineage.uuid;
  lineage.fork = is_fork(config);
  lineage.parent_run_id = config.lineage.parent_run_id;
  const auto* source = run_source(config);
  const std::string& from = source != nullptr ? source->run_id : loaded.lineage.run_id;
  if (continues(config)) {
    if (!own_run_id(config) && !from.empty()) lineage.run_id = from;
    lineage.parent_run_id = loaded.lineage.parent_run_id;
    lineage.fork = loaded.lineage.fork;
  } else if (lineage.parent_run_id.empty() && from != lineage.run_id) {
    lineage.parent_run_id = from;
  }
  return lineage;
}

void check_fork(const Config& config) {
  const auto* source = run_source(config);
  if (source == nullptr || !source->fork || own_run_id(config) || config.save.dir.empty()) return;
  const auto of_parent = expand_home(source->root) / source->run_id;
  std::error_code error;
  const auto parents = std::filesystem::weakly_canonical(of_parent, error);
  const auto own = std::filesystem::weakly_canonical(config.save.dir, error);
  if (error || own != parents) return;  // what can't be examined will be an error of its own
  fail(Errc::usage,
       "the run '{}' is forked, but save.dir is its own directory '{}', where the checkpoints of "
       "both would replace each other; give save.dir another one, or save.root alone",
       source->run_id, config.save.dir.string());
}

}  // namespace cairn::detail
