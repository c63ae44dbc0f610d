#include "cairn/context.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/json_numbers.hpp"
#include "base/near_names.hpp"
#include "base/throw.hpp"
#include "pipeline/config_document.hpp"

namespace cairn {
namespace {

using namespace detail;
using Json = nlohmann::ordered_json;

constexpr std::string_view kMetrics = "metrics.";
constexpr std::string_view kMetadata = "metadata.";

/// A document; one that is no JSON stays a text.
Json tree_of(const std::string& document) {
  Json tree = Json::parse(document, nullptr, /*allow_exceptions=*/false);
  return tree.is_discarded() ? Json(document) : tree;
}

Json report_of(const LoadReport& report) {
  Json json{{"loaded", report.loaded},         {"missing", report.missing},
            {"unexpected", report.unexpected}, {"mismatched", Json::array()},
            {"skipped", Json::array()},        {"cast", Json::array()},
            {"resharded", report.resharded},   {"rng_restored", report.rng_restored},
            {"states", Json::array()},         {"fraction_matched", report.fraction_matched}};
  for (const auto& [name, in_checkpoint, in_memory] : report.mismatched) {
    json["mismatched"].push_back(
        {{"name", name}, {"in_checkpoint", in_checkpoint}, {"in_memory", in_memory}});
  }
  for (const auto& [name, text] : report.states) {
    json["states"].push_back({{"name", name}, {"text", text}});
  }
  for (const auto& [name, reason] : report.skipped) {
    json["skipped"].push_back({{"name", name}, {"reason", reason}});
  }
  for (const auto& [name, from, to] : report.cast) {
    json["cast"].push_back({{"name", name}, {"from", to_string(from)}, {"to", to_string(to)}});
  }
  return json;
}

std::string text_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// Whether `tree` has something at the dotted path, which may begin with any of its keys.
bool has_path(const Json& tree, std::string_view path) {
  if (!tree.is_object()) return false;
  for (const auto& [key, value] : tree.items()) {
    if (path == key) return !value.is_null();
    if (path.starts_with(key) && path.substr(key.size()).starts_with('.') &&
        has_path(value, path.substr(key.size() + 1))) {
      return true;
    }
  }
  return false;
}

/// Everything that validate_for can find in this context, for advice on typing errors.
std::vector<std::string> fields_of(const CheckpointContext& context) {
  std::vector<std::string> fields{"optimizer",
                                  "scheduler",
                                  "rng",
                                  "lineage.run_id",
                                  "lineage.uuid",
                                  "lineage.parent_uuid",
                                  "lineage.parent_run_id"};
  for (const auto& [name, value] : context.metrics) fields.push_back(std::string(kMetrics) + name);
  for (const auto& [name, document] : context.documents) {
    fields.push_back(std::string(kMetadata) + name);
  }
  return fields;
}

/// Nothing for a field of an unknown kind.
std::optional<bool> has_field(const CheckpointContext& context, std::string_view field) {
  if (field == "optimizer" || field == "scheduler") {
    return context.documents.contains(std::string(field));
  }
  if (field == "rng") return context.report.rng_restored;
  if (field == "lineage.run_id") return !context.lineage.run_id.empty();
  if (field == "lineage.uuid") return !context.lineage.uuid.empty();
  if (field == "lineage.parent_uuid") return !context.lineage.parent_uuid.empty();
  if (field == "lineage.parent_run_id") return !context.lineage.parent_run_id.empty();
  if (field.starts_with(kMetrics)) {
    return context.metrics.contains(std::string(field.substr(kMetrics.size())));
  }
  if (!field.starts_with(kMetadata)) return std::nullopt;
  const std::string_view path = field.substr(kMetadata.size());
  return std::any_of(context.documents.begin(), context.documents.end(), [&](const auto& document) {
    const auto& [name, text] = document;
    if (path == name) return true;
    return path.starts_with(name) && path.substr(name.size()).starts_with('.') &&
           has_path(tree_of(text), path.substr(name.size() + 1));
  });
}

Json lineage_of(const Lineage& lineage) {
  return {{"run_id", lineage.run_id},
          {"uuid", lineage.uuid},
          {"parent_uuid", lineage.parent_uuid},
          {"parent_run_id", lineage.parent_run_id},
          {"fork", lineage.fork}};
}

}  // namespace

void CheckpointContext::validate_for(const std::string& purpose,
                                     const std::vector<std::string>& fields) const {
  std::string missing;
  for (const std::string& field : fields) {
    const auto has = has_field(*this, field);
    if (has && *has) continue;
    std::vector<std::string> known = fields_of(*this);
    // Where names are the checkpoint's own, those that it has may tell what was meant.
    const std::string_view kind = std::string_view(field).substr(0, field.find('.') + 1);
    if (has) {
      std::erase_if(known, [&](const std::string& each) {
        return kind.empty() || kind == "lineage." || !each.starts_with(kind);
      });
    }
    const std::string near = list_near(field, {known.begin(), known.end()});
    if (!has) fail(Errc::usage, "'{}' is no field of a context; near names: {}", field, near);
    missing += fmt::format("{}'{}'{}", missing.empty() ? "" : ", ", field,
                           near.empty() ? "" : fmt::format(" (near names: {})", near));
  }
  if (missing.empty()) return;
  fail(Errc::mismatch, "the checkpoint '{}' can't serve for {}: it lacks {}", path.string(),
       purpose, missing);
}

std::string to_json(const LoadReport& report) { return text_of(report_of(report)); }

std::string to_json(const CheckpointContext& context) {
  Json json{{"path", context.path.string()},
            {"format", context.format},
            {"format_version", context.format_version},
            {"epoch", context.epoch},
            {"global_step", context.global_step},
            {"saved_world_size", context.saved_world_size}};
  json["metrics"] = Json::object();
  for (const auto& [name, value] : context.metrics) json["metrics"][name] = number_to_json(value);
  json["lineage"] = lineage_of(context.lineage);
  json["run"] = lineage_of(context.run);
  json["run"].erase("uuid");
  json["config"] = config_json(context.config);
  json["report"] = report_of(context.report);
  json["modifiers"] = json["trace"] = Json::array();
  for (const auto& [type, names, text] : context.modifiers) {
    json["modifiers"].push_back({{"type", type}, {"names", names}, {"text", text}});
  }
  for (const auto& [name, seconds, bytes, result] : context.trace) {
    json["trace"].push_back(
        {{"name", name}, {"seconds", seconds}, {"bytes", bytes}, {"result", result}});
  }
  json["warnings"] = context.warnings;
  json["metadata"] = Json::object();
  for (const auto& [name, document] : context.documents) json["metadata"][name] = tree_of(document);
  return text_of(json);
}

}  // namespace cairn
