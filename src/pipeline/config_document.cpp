// From settings back to the document that they could have been read from: so programs are held to
// the rules of files, and what holds is shown in one form.
#include "pipeline/config_document.hpp"

#include <string_view>
#include <utility>
#include <vector>

#include "base/digest.hpp"
#include "pipeline/document.hpp"
#include "pipeline/rules.hpp"
#include "pipeline/words.hpp"

namespace cairn::detail {
namespace {

/// A mapping that is being filled.
class Mapping {
 public:
  Mapping() { value_.type = Value::Type::mapping; }

  void add(std::string_view key, Value value) {
    if (value_.find(key) == nullptr) value_.entries.emplace_back(key, std::move(value));
  }
  void add(std::string_view key, Mapping block) { add(key, std::move(block.value_)); }
  void add(std::string_view key, std::vector<Value> items) {
    Value list;
    list.type = Value::Type::list;
    list.items = std::move(items);
    add(key, std::move(list));
  }
  void text(std::string_view key, std::string_view value) {
    Value scalar;
    scalar.type = Value::Type::scalar;
    scalar.text = value;
    add(key, std::move(scalar));
  }
  /// Nothing where it is empty.
  void given(std::string_view key, const std::string& value) {
    if (!value.empty()) text(key, value);
  }
  template <class T>
  void number(std::string_view key, T value) {
    text(key, fmt::format("{}", value));
  }
  void seconds(std::string_view key, std::chrono::milliseconds value) {
    number(key, static_cast<double>(value.count()) / 1000);
  }
  void seconds(std::string_view key, const std::optional<double>& value) {
    if (value) number(key, *value);
  }
  void texts(std::string_view key, const std::vector<std::string>& values) {
    std::vector<Value> items(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      items[i].type = Value::Type::scalar;
      items[i].text = values[i];
    }
    add(key, std::move(items));
  }

  bool empty() const { return value_.entries.empty(); }
  Value take() { return std::move(value_); }

 private:
  Value value_;
};

// ---- checkpoint

void add_fetch(const FetchOptions& fetch, Mapping& to) {
  to.given("cache_dir", fetch.cache_dir.string());
  if (fetch.max_retries >= 0) to.number("max_retries", fetch.max_retries);
  if (fetch.timeout.count() > 0) to.seconds("timeout", fetch.timeout);
  to.number("connections", fetch.connections);
  to.number("part_bytes", fetch.part_bytes);
  to.given("ca_file", fetch.ca_file.string());
}

void add_options(const std::map<std::string, std::string>& options, Mapping& to) {
  for (const auto& [key, value] : options) to.text(key, value);
}

struct SourceWriter {
  Mapping& to;
  void operator()(const LocalSource& source) const { to.text("path", source.path.string()); }
  void operator()(const RunSource& source) const {
    to.given("root", source.root.string());
    to.text("run_id", source.run_id);
    to.number("fork", source.fork);
    to.given("file", source.file);
  }
  void operator()(const HttpSource& source) const {
    to.text("url", source.url);
    to.given("sha256", source.sha256);
    to.given("token_env", source.token_env);
    add_fetch(source.fetch, to);
  }
  void operator()(const S3Source& source) const {
    to.text("bucket", source.bucket);
    to.text("key", source.key);
    to.given("region", source.region);
    to.given("endpoint", source.endpoint);
    to.text("style", word_of(source.style, kStyleWords));
    to.given("profile", source.profile);
    to.number("anonymous", source.anonymous);
    to.given("sha256", source.sha256);
    add_fetch(source.fetch, to);
  }
  void operator()(const HubSource& source) const {
    to.text("repo", source.repo);
    to.given("revision", source.revision);
    to.given("file", source.file);
    to.given("endpoint", source.endpoint);
    to.given("token_env", source.token_env);
    add_fetch(source.fetch, to);
  }
  void operator()(const CustomSource& source) const {
    add_fetch(source.fetch, to);
    add_options(source.options, to);
  }
};

Mapping source_of(const Source& source) {
  Mapping to;
  to.text("type", source_type(source));
  std::visit(SourceWriter{to}, source);
  return to;
}

/// What a type does not have stands only where a program gave it: it is refused then.
Mapping loading_of(const LoadingConfig& loading) {
  Mapping to;
  to.text("type", word_of(loading.type, kLoadingWords));
  if (loading.type != LoadingType::warm_start) to.number("strict", loading.strict);
  if (!loading.skip_mismatched) to.number("skip_mismatched", false);
  if (loading.freeze_loaded) to.number("freeze_loaded", true);
  if (loading.cast) to.number("cast", true);
  to.text("verify", word_of(loading.verify, kVerifyWords));
  to.text("broadcast", word_of(loading.broadcast, kBroadcastWords));
  to.number("keep_copy", loading.keep_copy);
  if (loading.rescale_lr != RescaleRate::off) {
    to.text("rescale_lr", word_of(loading.rescale_lr, kRescaleWords));
  }
  if (loading.min_match != 0) to.number("min_match", loading.min_match);
  if (loading.reset_progress) to.number("reset_progress", true);
  if (!loading.reset_layers.empty()) to.texts("reset_layers", loading.reset_layers);
  std::vector<Value> rules;
  for (const RenameRule& rule : loading.rename) {
    Mapping item;
    item.text("from", rule.from);
    item.text("to", rule.to);
    item.number("regex", rule.regex);
    rules.push_back(item.take());
  }
  if (!rules.empty()) to.add("rename", std::move(rules));
  return to;
}

Mapping checkpoint_of(const Config& config) {
  Mapping to;
  if (config.source) to.add("source", source_of(*config.source));
  if (config.loading) to.add("loading", loading_of(*config.loading));
  to.given("migrations", config.migrations.string());
  Mapping lineage;
  lineage.given("resume_run_id", config.lineage.resume_run_id);
  lineage.given("parent_run_id", config.lineage.parent_run_id);
  if (!lineage.empty()) to.add("lineage", std::move(lineage));
  return to;
}

// ---- model_modifier

struct ModifierWriter {
  Mapping& to;
  void operator()(const FreezeModifier& modifier) const {
    to.text("type", "freeze");
    to.texts("layers", modifier.layers);
  }
  void operator()(const ResetModifier& modifier) const {
    to.text("type", "reset");
    to.texts("layers", modifier.layers);
  }
  void operator()(const LoraModifier& modifier) const {
    to.text("type", "lora");
    to.number("rank", modifier.rank);
    if (modifier.alpha) to.number("alpha", *modifier.alpha);
    to.number("dropout", modifier.dropout);
    to.texts("target_modules", modifier.target_modules);
  }
  void operator()(const CastModifier& modifier) const {
    to.text("type", "cast");
    to.text("dtype", to_string(modifier.dtype));
    if (!modifier.layers.empty()) to.texts("layers", modifier.layers);
  }
  void operator()(const CustomModifier& modifier) const {
    to.text("type", modifier.type);
    add_options(modifier.options, to);
  }
};

Mapping modifiers_of(const std::vector<Modifier>& modifiers) {
  std::vector<Value> items;
  for (const Modifier& modifier : modifiers) {
    Mapping item;
    std::visit(ModifierWriter{item}, modifier);
    items.push_back(item.take());
  }
  Mapping to;
  if (!items.empty()) to.add("modifiers", std::move(items));
  return to;
}

// ---- pipeline, save

Mapping pipeline_of(const PipelineConfig& pipeline) {
  Mapping to;
  to.number("async_execution", pipeline.async_execution);
  to.number("max_retries", pipeline.max_retries);
  to.seconds("timeout", pipeline.timeout);
  to.number("fallback", pipeline.fallback);
  return to;
}

void add_triggers(const SaveConfig& save, Mapping& to) {
  to.number("enabled", save.enabled);
  to.number("every_n_steps", save.every_n_steps);
  to.number("every_n_epochs", save.every_n_epochs);
  to.number("every_minutes", save.every_minutes);
  to.given("monitor", save.monitor);
  to.text("mode", word_of(save.mode, kOrderWords));
  to.number("save_top_k", save.save_top_k);
  std::vector<Value> triggers;
  for (const SaveTrigger& trigger : save.triggers) {
    Mapping item;
    item.text("unit", word_of(trigger.unit, kUnitWords));
    item.number("save_frequency", trigger.save_frequency);
    item.number("num_models_saved", trigger.num_models_saved);
    triggers.push_back(item.take());
  }
  if (!triggers.empty()) to.add("triggers", std::move(triggers));
}

Mapping preemption_of(const PreemptionConfig& preemption) {
  Mapping to;
  to.number("signals", preemption.signals);
  to.seconds("time_limit", preemption.time_limit_s);
  to.seconds("lead", preemption.lead_s);
  to.seconds("grace", preemption.grace_s);
  return to;
}

void add_retention(const RetentionPolicy& retention, Mapping& to) {
  to.number("keep_last", retention.keep_last);
  to.number("keep_every_n_steps", retention.keep_every_n_steps);
  if (retention.keep_best.k == 0) return;
  Mapping best;
  best.number("k", retention.keep_best.k);
  best.text("metric", retention.keep_best.metric);
  best.text("mode", word_of(retention.keep_best.mode, kOrderWords));
  to.add("keep_best", std::move(best));
}

Mapping mpio_of(const MpioOptions& mpio) {
  Mapping to;
  Mapping hints;
  add_options(mpio.hints, hints);
  if (!hints.empty()) to.add("hints", std::move(hints));
  to.text("component", word_of(mpio.component, kComponentWords));
  if (mpio.watchdog) to.seconds("watchdog", *mpio.watchdog);
  to.number("deflate", mpio.deflate);
  to.number("shuffle", mpio.shuffle);
  return to;
}

Mapping async_of(const AsyncOptions& async) {
  Mapping to;
  to.number("budget_bytes", async.budget_bytes);
  to.text("when_busy", word_of(async.when_busy, kBusyWords));
  to.text("on_failure", word_of(async.on_failure, kFailureWords));
  return to;
}

Mapping save_of(const SaveConfig& save) {
  Mapping to;
  to.given("dir", save.dir.string());
  to.given("root", save.root.string());
  add_triggers(save, to);
  to.add("preemption", preemption_of(save.preemption));
  add_retention(save.retention, to);
  to.number("lease", save.lease);
  to.number("max_restarts", save.max_restarts);
  Mapping templates;
  for (const auto& [unit, text] : save.name_templates) {
    templates.text(word_of(unit, kUnitWords), text);
  }
  if (!templates.empty()) to.add("name_templates", std::move(templates));
  to.text("engine", word_of(save.engine, kEngineWords));
  to.text("transfer", word_of(save.transfer, kTransferWords));
  to.add("mpio", mpio_of(save.mpio));
  to.number("durable", save.durable);
  to.number("statistics", save.statistics);
  to.text("replica_check", word_of(save.replica_check, kReplicaWords));
  to.number("delta", save.delta);
  if (save.async) {
    to.add("async", async_of(*save.async));
  } else {
    to.number("async", false);
  }
  return to;
}

std::uint64_t hash_of(const nlohmann::ordered_json& json) {
  return digest_of(json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

}  // namespace

Value document_of(const Config& config) {
  Mapping document;
  Mapping checkpoint = checkpoint_of(config);
  if (!checkpoint.empty()) document.add("checkpoint", std::move(checkpoint));
  Mapping modifiers = modifiers_of(config.modifiers);
  if (!modifiers.empty()) document.add("model_modifier", std::move(modifiers));
  document.add("pipeline", pipeline_of(config.pipeline));
  document.add("save", save_of(config.save));
  return document.take();
}

void check(const Config& config, const std::string& origin) {
  const Value document = document_of(config);
  check_block(document, kDocument, Place{origin, ""});
  config_of(document, origin);
}

nlohmann::ordered_json config_json(const Config& config) {
  const Value document = document_of(config);
  return resolved_block(&document, kDocument);
}

std::vector<ConfigPart> parts_of(const Config& config) {
  auto json = config_json(config);
  auto& checkpoint = json["checkpoint"];
  auto& save = json["save"];
  // Rank 0 alone fetches; nodes may have directories of their own.
  if (checkpoint.contains("source")) {
    for (const char* key : {"cache_dir", "ca_file"}) checkpoint["source"].erase(key);
  }
  // A rank's own time and memory.
  save.erase("preemption");
  if (save["async"].is_object()) save["async"].erase("budget_bytes");
  return {{"checkpoint.source", hash_of(checkpoint["source"])},
          {"checkpoint.loading", hash_of(checkpoint["loading"])},
          {"checkpoint.migrations", hash_of(checkpoint["migrations"])},
          {"checkpoint.lineage", hash_of(checkpoint["lineage"])},
          {"model_modifier", hash_of(json["model_modifier"])},
          {"pipeline", hash_of(json["pipeline"])},
          {"save", hash_of(save)}};
}

}  // namespace cairn::detail
