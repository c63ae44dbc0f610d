#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/throw.hpp"
#include "cairn/legacy_config.hpp"
#include "pipeline/document.hpp"
#include "pipeline/legacy/edit.hpp"

namespace cairn {
namespace detail::legacy {
namespace {

constexpr std::string_view kBom = "\xef\xbb\xbf";

Json notes_json(const std::vector<MigrationNote>& notes) {
  Json json = Json::array();
  for (const MigrationNote& note : notes) {
    json.push_back({{"code", note.code},
                    {"about", note.about},
                    {"line", note.line},
                    {"message", note.message}});
  }
  return json;
}

std::string report_of(const ConfigMigration& migration, const Plan& plan) {
  Json actions = Json::array();
  for (const MovedKey& moved : migration.moved) {
    actions.push_back({{"key", moved.key},
                       {"line", moved.line},
                       {"to", moved.to.empty() ? Json() : Json(moved.to)},
                       {"why", moved.why}});
  }
  Json json = {{"era", migration.era},
               {"changed", migration.changed},
               {"actions", actions},
               {"warnings", notes_json(migration.warnings)},
               {"errors", notes_json(migration.errors)}};
  json["migrated"] = migration.ok() && plan.version.era != Era::es ? plan.summary() : Json();
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

/// A part of a configuration, which its main file puts below `training`: its keys look like any
/// others, and cairn's blocks can't stand in it.
void refuse_parts(const Value& document, Reader& reader) {
  for (const char* key : {"fork_run_id", "load_weights_only", "submodules_to_freeze"}) {
    if (document.find(key) == nullptr) continue;
    reader.error("part-of-a-configuration", {key},
                 "stands at the top: this file is a part that another one includes; migrate the "
                 "composed configuration");
    return;
  }
}

/// Before anything is made of the old keys: alone they may mean something else, or nothing.
void refuse_two_loads(const Value& document, Reader& reader) {
  for (const char* key : {"checkpoint.source", "checkpoint.loading", "checkpoint.lineage"}) {
    const Value* block = find_path(document, key);
    if (block == nullptr || block->type == Value::Type::null) continue;
    for (const LegacyKey& old : legacy_keys()) {
      if (old.group != Group::load || !reader.says(old.path)) continue;
      reader.error("old-new-conflict", {std::string(old.path), key},
                   fmt::format("and '{}' (line {}) both say what is loaded: remove one of them",
                               key, block->line));
    }
    return;
  }
}

std::string migrated(const std::string& text, const Value& document,
                     const std::optional<Version>& from, Plan& plan, const std::string& origin) {
  Reader reader(document, plan);
  refuse_parts(document, reader);
  refuse_two_loads(document, reader);
  plan.version = version_of(reader, from);
  if (!plan.errors.empty()) return text;
  if (first_legacy_key(document) == nullptr && reader.has_blocks()) plan.version.era = Era::es;
  if (plan.version.era == Era::es) return text;
  plan_save(reader, plan);
  if (plan.version.era == Era::e3 && reader.says("training.checkpoint")) {
    plan_classes(reader, plan);
  } else {
    plan_load(reader, plan);
  }
  plan_modifiers(reader, plan);
  return plan.errors.empty() ? edited(text, document, plan, origin) : text;
}

}  // namespace
}  // namespace detail::legacy

LegacyConfigMigrator::LegacyConfigMigrator(std::string from_version)
    : from_version_(std::move(from_version)) {
  if (!from_version_.empty()) detail::legacy::parse_version(from_version_);
}

ConfigMigration LegacyConfigMigrator::migrate(const std::string& yaml,
                                              const std::string& origin) const {
  using namespace detail::legacy;
  const bool bom = yaml.starts_with(kBom);
  const std::string text = bom ? yaml.substr(kBom.size()) : yaml;
  detail::Value document = detail::parse_yaml(text, origin);
  if (document.type == detail::Value::Type::null) document.type = detail::Value::Type::mapping;
  if (document.type != detail::Value::Type::mapping) {
    detail::Place{origin, ""}.refuse(document, "must be a mapping");
  }
  Plan plan;
  std::optional<Version> from;
  if (!from_version_.empty()) from = parse_version(from_version_);
  const std::string result = migrated(text, document, from, plan, origin);
  ConfigMigration migration;
  migration.era = to_string(plan.version.era);
  migration.text = bom ? std::string(kBom) + result : result;
  migration.changed = result != text;
  migration.errors = std::move(plan.errors);
  migration.warnings = plan.warnings;
  if (migration.ok()) migration.moved = plan.moved;
  migration.report = report_of(migration, plan);
  return migration;
}

ConfigMigration LegacyConfigMigrator::migrate_file(const std::filesystem::path& path) const {
  return migrate(detail::read_configuration(path), path.string());
}

}  // namespace cairn
