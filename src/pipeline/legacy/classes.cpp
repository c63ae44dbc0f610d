#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "pipeline/legacy/plan.hpp"
#include "pipeline/legacy/references.hpp"
#include "pipeline/rules.hpp"

// Era E3: training.checkpoint holds stages, each a class (`_target_`) and its arguments.
namespace cairn::detail::legacy {
namespace {

constexpr const char* kStages = "training.checkpoint";

/// An argument of a class, and its key here.
struct Argument {
  std::string_view from;
  std::string_view to;
};
constexpr std::array kLocalArguments{Argument{"path", "path"}};
constexpr std::array kRunArguments{Argument{"run_id", "run_id"}, Argument{"fork", "fork"}};
constexpr std::array kHttpArguments{Argument{"url", "url"}, Argument{"max_retries", "max_retries"},
                                    Argument{"timeout", "timeout"},
                                    Argument{"expected_checksum", "sha256"}};
constexpr std::array kS3Arguments{Argument{"bucket", "bucket"}, Argument{"key", "key"}};
constexpr std::array kStrictArguments{Argument{"strict", "strict"}};
constexpr std::array kTransferArguments{Argument{"skip_mismatched", "skip_mismatched"}};

struct Stage {
  std::string_view name;  ///< the class, without its module
  std::string_view type;
  std::span<const Argument> arguments;
};
constexpr std::array kSources{
    Stage{"LocalSource", "local", kLocalArguments}, Stage{"RunSource", "run", kRunArguments},
    Stage{"HTTPSource", "http", kHttpArguments},    Stage{"HttpSource", "http", kHttpArguments},
    Stage{"S3Source", "s3", kS3Arguments},
};
constexpr std::array kLoaders{
    Stage{"WeightsOnlyLoader", "weights_only", kStrictArguments},
    Stage{"ColdStartLoader", "cold_start", kStrictArguments},
    Stage{"TransferLearningLoader", "transfer_learning", kTransferArguments},
    Stage{"WarmStartLoader", "warm_start", {}},
};

std::string class_of(const Value& stage) {
  const Value* target = stage.find("_target_");
  if (target == nullptr || target->type != Value::Type::scalar) return "";
  return target->text.substr(target->text.rfind('.') + 1);
}

/// A scalar argument as the JSON value that it is.
Json argument_of(const Value& value, const std::string& holder) {
  bool flag = false;
  std::int64_t integer = 0;
  if (parse_flag(value.text, flag)) return flag;
  if (parse_integer(value.text, integer)) return integer;
  return replace_references(value.text, holder,
                            [](const std::string& path) { return "${" + path + "}"; });
}

/// The block of a stage; null, with an error told, where it is of no known kind.
Json block_of(Reader& reader, const std::string& path, std::span<const Stage> stages) {
  const Value& value = *reader.find(path);
  const std::string name = class_of(value);
  const auto stage = std::find_if(stages.begin(), stages.end(),
                                  [&](const Stage& each) { return each.name == name; });
  if (stage == stages.end()) {
    reader.error("unknown-class", {path},
                 name.empty()
                     ? "has no _target_"
                     : fmt::format("is of the class '{}', which has no counterpart", name));
    return {};
  }
  Json block = {{"type", stage->type}};
  for (const auto& [key, child] : value.entries) {
    if (key == "_target_" || child.type == Value::Type::null) continue;
    const auto argument =
        std::find_if(stage->arguments.begin(), stage->arguments.end(),
                     [&, name = std::string_view(key)](const auto& a) { return a.from == name; });
    const bool url = name == "S3Source" && key == "url";
    if (child.type != Value::Type::scalar || (argument == stage->arguments.end() && !url)) {
      reader.error("unknown-argument", {path + "." + key},
                   fmt::format("is no argument of '{}' that has a counterpart", name));
    } else if (url && child.text.starts_with("s3://")) {
      const auto slash = std::min(child.text.find('/', 5), child.text.size());
      block["bucket"] = child.text.substr(5, slash - 5);
      block["key"] = child.text.substr(std::min(slash + 1, child.text.size()));
    } else if (url) {
      reader.error("invalid-value", {path + "." + key}, "must begin with s3://");
    } else {
      block[std::string(argument->to)] = argument_of(child, path);
    }
  }
  return block;
}

void plan_source_class(Reader& reader, Plan& plan) {
  const std::string path = fmt::format("{}.source", kStages);
  Json block = block_of(reader, path, kSources);
  if (block.is_null()) return;
  if (block["type"] == "run") {
    if (!block.contains("run_id")) return;  // it passed a fresh run through
    const std::string id = block["run_id"].is_string() ? block["run_id"].get<std::string>()
                                                       : reader.find(path + ".run_id")->text;
    const bool fork = block.contains("fork") && block["fork"] == true;
    block = {{"type", "run"}};
    if (plan.save.contains("root")) {
      block["root"] = plan.save["root"];
      plan.source_path = join(join(plan.save["root"], id), "last.ckpt");
    }
    block["run_id"] = id;
    block["fork"] = fork;
    plan.lineage[fork ? "parent_run_id" : "resume_run_id"] = id;
    plan.comments["checkpoint.lineage"].push_back("as the run source said");
  } else if (block["type"] == "local" && block.contains("path")) {
    plan.source_path = block["path"];
  } else if (block["type"] == "http" && block.contains("url") &&
             block["url"].get<std::string>().starts_with("https://")) {
    block["type"] = "https";
  }
  plan.source = std::move(block);
  plan.comments["checkpoint.source"] = {fmt::format("was {}", path)};
}

void plan_loading_class(Reader& reader, Plan& plan, const std::string& path) {
  plan.loading = block_of(reader, path, kLoaders);
  if (plan.loading.is_null()) return;
  const std::string type = plan.loading["type"];
  plan.comments["checkpoint.loading"] = {fmt::format("was {}", path)};
  if (type == "weights_only" || type == "cold_start") {
    if (!plan.loading.contains("strict")) plan.loading["strict"] = true;
  } else if (type == "transfer_learning") {
    plan.loading["strict"] = false;
    if (!plan.loading.contains("skip_mismatched")) plan.loading["skip_mismatched"] = true;
  }
  plan.reset_progress = type == "cold_start";
}

/// A freezing stage; its names begin at the outer module already.
void plan_freezing_class(Reader& reader, Plan& plan, const Value& stage, const std::string& path) {
  if (class_of(stage) != "FreezingModifierStage") {
    reader.error(
        "unknown-class", {path},
        fmt::format("holds a stage of the class '{}', which has no counterpart", class_of(stage)));
    return;
  }
  Json layers = Json::array();
  for (const auto& [key, child] : stage.entries) {
    const bool list = key == "submodules_to_freeze" || key == "submodules" || key == "layers";
    if (list && child.type == Value::Type::list) {
      for (const Value& item : child.items) layers.push_back(item.text);
    } else if (key != "_target_" && key != "strict" && key != "validate_gradients" &&
               child.type != Value::Type::null) {
      reader.error("unknown-argument", {path},
                   fmt::format("gives a stage '{}', which has no counterpart", key));
    }
  }
  if (layers.empty()) return;
  plan.modifiers.push_back({{"type", "freeze"}, {"layers", layers}});
  if (!plan.freeze) plan.freeze = Json::array();
  plan.freeze->insert(plan.freeze->end(), layers.begin(), layers.end());
  plan.comments["model_modifier.modifiers"] = {fmt::format("was {}", path),
                                               "a name that matches nothing is an error now"};
}

void refuse_older_keys(Reader& reader) {
  for (const LegacyKey& key : legacy_keys()) {
    const bool same = key.path == kStages || key.group == Group::save;
    if (same || !says_something(key, reader.find(key.path))) continue;
    if (key.group == Group::averaging) continue;
    reader.error(
        "old-new-conflict", {std::string(key.path), kStages},
        fmt::format("stands beside {}, which took its place: remove one of them", kStages));
  }
}

}  // namespace

void plan_classes(Reader& reader, Plan& plan) {
  refuse_older_keys(reader);
  const Value& stages = *reader.find(kStages);
  for (const auto& [key, stage] : stages.entries) {
    const std::string path = fmt::format("{}.{}", kStages, key);
    if (stage.type == Value::Type::null) continue;
    if (key == "source") {
      plan_source_class(reader, plan);
    } else if (key == "loading" || key == "loader") {
      plan_loading_class(reader, plan, path);
    } else if (key == "modifiers") {
      for (const Value& each : stage.items) plan_freezing_class(reader, plan, each, path);
      for (const auto& each : stage.entries) plan_freezing_class(reader, plan, each.second, path);
    } else {
      reader.error("unknown-key", {path}, "is neither source, loading nor modifiers");
    }
  }
  if (!plan.source.is_null() && plan.loading.is_null() && plan.errors.empty()) {
    reader.error("loader-missing", {kStages},
                 "has a source and no loader, which its release refused: add training.checkpoint."
                 "loading (WarmStartLoader restores everything)");
  }
  reader.move(kStages, "checkpoint, model_modifier", "blocks instead of classes");
}

}  // namespace cairn::detail::legacy
