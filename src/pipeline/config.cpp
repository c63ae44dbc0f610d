#include "cairn/config.hpp"

#include "base/bounded_regex.hpp"
#include "pipeline/block.hpp"
#include "pipeline/document.hpp"
#include "pipeline/words.hpp"
#include "sources/local.hpp"

namespace cairn {
namespace detail {
namespace {

RenameRule rename_of(const Block& block) {
  RenameRule rule;
  block.take("from", rule.from);
  block.take("to", rule.to);
  block.take("regex", rule.regex);
  if (!rule.regex) return rule;
  try {
    const BoundedRegex compiled(rule.from, "the expression");
  } catch (const Error& error) {
    block.place().at("from").refuse(*block.find("from"),
                                    fmt::format("is no regular expression: {}", error.what()));
  }
  return rule;
}

LoadingConfig loading_of(const Block& block) {
  LoadingConfig loading;
  block.take("type", loading.type, kLoadingWords);
  loading.strict = loading.type != LoadingType::transfer_learning;
  block.take("strict", loading.strict);
  block.take("skip_mismatched", loading.skip_mismatched);
  block.take("freeze_loaded", loading.freeze_loaded);
  block.take("cast", loading.cast);
  block.take("verify", loading.verify, kVerifyWords);
  block.take("broadcast", loading.broadcast, kBroadcastWords);
  block.take("keep_copy", loading.keep_copy);
  block.take("rescale_lr", loading.rescale_lr, kRescaleWords);
  block.take("min_match", loading.min_match);
  block.take("reset_progress", loading.reset_progress);
  block.take("reset_layers", loading.reset_layers);
  for (const Block& rule : block.blocks("rename")) loading.rename.push_back(rename_of(rule));
  return loading;
}

LoraModifier lora_of(const Block& block) {
  LoraModifier lora;
  block.take("rank", lora.rank);
  block.take("dropout", lora.dropout);
  block.take("target_modules", lora.target_modules);
  if (block.find("alpha") != nullptr) {
    lora.alpha = 0;
    block.take("alpha", *lora.alpha);
  }
  return lora;
}

Modifier modifier_of(const Block& block) {
  std::string type;
  block.take("type", type);
  if (type == "lora") return lora_of(block);
  if (type != "freeze" && type != "reset" && type != "cast") {
    return CustomModifier{type, texts_of(block)};
  }
  std::vector<std::string> layers;
  block.take("layers", layers);
  if (type == "freeze") return FreezeModifier{std::move(layers)};
  if (type == "reset") return ResetModifier{std::move(layers)};
  CastModifier cast{DType::f32, std::move(layers)};
  block.take("dtype", cast.dtype, kFloatWords);
  return cast;
}

void take_pipeline(const Block& block, PipelineConfig& pipeline) {
  block.take("async_execution", pipeline.async_execution);
  block.take("max_retries", pipeline.max_retries);
  block.take("timeout", pipeline.timeout);
  block.take("fallback", pipeline.fallback);
}

/// An id is the name of a directory below save.root.
std::string run_id_of(const Block& lineage, std::string_view key) {
  std::string id;
  lineage.take(key, id);
  if (id.find('/') != std::string::npos || id == "." || id == "..") {
    lineage.place().at(key).refuse(*lineage.find(key), "must be a run's id, not a path");
  }
  return id;
}

/// The directory of all runs serves the source, and the run's own where its id is known.
void fill_in_root(Config& config) {
  const auto& root = config.save.root;
  if (root.empty()) return;
  if (auto* run = config.source ? std::get_if<RunSource>(&*config.source) : nullptr) {
    if (run->root.empty()) run->root = root;
  }
  const std::string& id = config.lineage.resume_run_id;
  if (config.save.dir.empty() && !id.empty()) config.save.dir = root / id;
}

}  // namespace

Config config_of(const Value& document, const std::string& origin) {
  Config config;
  const Block root(&document, Place{origin, ""});
  const Block checkpoint = root.block("checkpoint");
  if (const Block source = checkpoint.block("source")) config.source = source_of(source);
  if (const Block loading = checkpoint.block("loading")) config.loading = loading_of(loading);
  checkpoint.take("migrations", config.migrations);
  const Block lineage = checkpoint.block("lineage");
  config.lineage.resume_run_id = run_id_of(lineage, "resume_run_id");
  config.lineage.parent_run_id = run_id_of(lineage, "parent_run_id");
  for (const Block& modifier : root.block("model_modifier").blocks("modifiers")) {
    config.modifiers.push_back(modifier_of(modifier));
  }
  take_pipeline(root.block("pipeline"), config.pipeline);
  take_save(root.block("save"), config.save);
  settle(config);
  return config;
}

void settle(Config& config) {
  config.save.dir = expand_home(config.save.dir);
  config.save.root = expand_home(config.save.root);
  config.migrations = expand_home(config.migrations);
  fill_in_root(config);
  settle_triggers(config.save);
}

}  // namespace detail

std::string_view to_string(LoadingType type) {
  switch (type) {
    case LoadingType::warm_start:
      return "warm_start";
    case LoadingType::cold_start:
      return "cold_start";
    case LoadingType::weights_only:
      return "weights_only";
    case LoadingType::transfer_learning:
      return "transfer_learning";
  }
  return "unknown";
}

Config Config::from_string(const std::string& yaml, const std::string& origin) {
  return detail::config_of(detail::checked_document(yaml, origin), origin);
}

Config Config::from_file(const std::filesystem::path& path) {
  return from_string(detail::read_configuration(path), path.string());
}

SourceSettings source_settings(const Config& config) {
  SourceSettings settings;
  settings.max_retries = config.pipeline.max_retries;
  settings.timeout = config.pipeline.timeout;
  settings.fallback = config.pipeline.fallback;
  return settings;
}

}  // namespace cairn
