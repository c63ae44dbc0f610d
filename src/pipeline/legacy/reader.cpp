#include <fmt/format.h>

#include <algorithm>

#include "pipeline/legacy/plan.hpp"
#include "pipeline/legacy/references.hpp"
#include "pipeline/rules.hpp"

namespace cairn::detail::legacy {

Json Plan::summary() const {
  Json json;
  json["source"] = source;
  if (!source.is_null()) {
    json["source"].erase("root");
    json["source"].erase("file");
    json["source"]["path"] = source_path.empty() ? Json() : Json(source_path);
  }
  const auto id = [&](const char* key) {
    return lineage.is_object() && lineage.contains(key) ? lineage[key] : Json();
  };
  json["lineage"] = {{"resume_run_id", id("resume_run_id")},
                     {"parent_run_id", id("parent_run_id")},
                     {"new_run", id("resume_run_id").is_null()}};
  json["loading"] = Json();
  if (!loading.is_null()) {
    json["loading"]["strategy"] = loading["type"];
    for (const auto& [key, value] : loading.items()) {
      if (key != "type" && key != "reset_progress") json["loading"][key] = value;
    }
  }
  json["reset_progress"] = reset_progress;
  json["freeze"] = freeze ? *freeze : Json();
  json["save"] = Json();
  if (!save.empty()) {
    json["save"] = {{"root", Json()}, {"triggers", Json()}};
    json["save"].update(save);
  }
  return json;
}

bool Reader::has_blocks() const {
  return std::any_of(kDocument.keys.begin(), kDocument.keys.end(), [&](const Key& key) {
    const Value* block = document_.find(key.name);
    return block != nullptr && block->type != Value::Type::null;
  });
}

bool Reader::says(std::string_view path) const {
  const auto keys = legacy_keys();
  const auto key =
      std::find_if(keys.begin(), keys.end(), [&](const auto& each) { return each.path == path; });
  return key != keys.end() && says_something(*key, find(path));
}

int Reader::line_of(std::string_view path) const {
  const Value* value = find(path);
  return value == nullptr ? 0 : value->line;
}

std::string Reader::text(std::string_view path) {
  const Value* value = find(path);
  if (value == nullptr || value->type == Value::Type::null) return "";
  if (value->type != Value::Type::scalar) {
    error("invalid-value", {std::string(path)}, "must be a text");
    return "";
  }
  const auto keys = legacy_keys();
  return replace_references(
      value->text, parent_of(path), [&](const std::string& target) -> std::optional<std::string> {
        const bool moves = target != path && std::any_of(keys.begin(), keys.end(), [&](auto& key) {
                             return key.path == target && says_something(key, find(target));
                           });
        const Value* old = find(target);
        if (moves && old->type == Value::Type::scalar) {
          return filled_in(document_, old->text, parent_of(target));
        }
        return "${" + target + "}";
      });
}

std::string Reader::resolved(std::string_view path) {
  return filled_in(document_, text(path), parent_of(path));
}

bool Reader::flag(std::string_view path) {
  const std::string value = resolved(path);
  bool flag = false;
  if (value.empty() || parse_legacy_flag(value, flag)) return flag;
  if (value.find("${") != std::string::npos || value == "\?\?\?") {
    error(
        "unresolved-value", {std::string(path)},
        fmt::format("is '{}': what it will be decides what is loaded; write true or false", value));
  } else {
    error("invalid-value", {std::string(path)}, fmt::format("is '{}', not true or false", value));
  }
  return false;
}

void Reader::move(std::string_view key, std::string_view to, std::string why) {
  if (find(key) == nullptr) return;
  plan_.moved.push_back({std::string(key), line_of(key), std::string(to), std::move(why)});
}

MigrationNote Reader::note(std::string_view code, std::vector<std::string> about,
                           std::string message) const {
  MigrationNote note{std::string(code), std::move(message), std::move(about), 0};
  for (const auto& key : note.about) {
    if (note.line == 0) note.line = line_of(key);
  }
  if (!note.about.empty()) note.message = fmt::format("'{}' {}", note.about[0], note.message);
  return note;
}

void Reader::warn(std::string_view code, std::vector<std::string> about, std::string message) {
  plan_.warnings.push_back(note(code, std::move(about), std::move(message)));
}

void Reader::error(std::string_view code, std::vector<std::string> about, std::string message) {
  plan_.errors.push_back(note(code, std::move(about), std::move(message)));
}

std::string join(const std::string& dir, const std::string& file) {
  if (dir.empty() || file.starts_with('/')) return file;
  return dir.ends_with('/') ? dir + file : dir + "/" + file;
}

}  // namespace cairn::detail::legacy
