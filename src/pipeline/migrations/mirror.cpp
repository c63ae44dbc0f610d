#include "pipeline/migrations/mirror.hpp"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <utility>

namespace cairn::detail::migrations {
namespace {

constexpr std::array<const char*, 4> kLists{"objects", "opaque", "arrays", "containers"};

bool is_told(Working& working, const DocumentPlace& place) {
  return place.document() == "training" && !place.is_document() &&
         working.document("objects").is_array();
}

/// Keys of a path are texts or numbers, those of a place are texts.
bool is_key(const Json& key, const std::string& text) {
  return key.is_string() ? key.get_ref<const std::string&>() == text
                         : key.is_number_integer() && key.dump() == text;
}

bool begins(const Json& path, const std::vector<std::string>& keys) {
  if (!path.is_array() || path.size() < keys.size()) return false;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (!is_key(path[i], keys[i])) return false;
  }
  return true;
}

/// Gives each item whose path begins with the place's keys to `change`; it goes when that says no.
void each_below(Working& working, const DocumentPlace& place,
                const std::function<bool(Json& path)>& change) {
  for (const char* name : kLists) {
    if (!working.document(name).is_array()) continue;
    Json kept = Json::array();
    for (Json& item : working.change(name)) {
      const bool stays = !item.is_object() || !item.contains("path") ||
                         !begins(item["path"], place.keys()) || change(item["path"]);
      if (stays) kept.push_back(std::move(item));
    }
    working.change(name) = std::move(kept);
  }
}

Json leaf_of(const Json& value) {
  if (value.is_null()) return {{"type", "none"}, {"value", nullptr}};
  if (value.is_boolean()) return {{"type", "bool"}, {"value", value}};
  if (value.is_number_integer()) return {{"type", "int"}, {"value", value}};
  if (value.is_string()) return {{"type", "str"}, {"value", value}};
  if (value.is_array()) return {{"type", "list"}, {"value", value}};
  if (value.is_object()) return {{"type", "dict"}, {"value", value}};
  const auto number = value.get<double>();
  return {{"type", "float"},
          {"value", number},
          {"bits", fmt::format("{:016x}", std::bit_cast<std::uint64_t>(number))}};
}

void add_leaves(Json& objects, const Json& path, const Json& value) {
  if (!value.is_structured() || value.empty()) {
    Json leaf{{"path", path}};
    leaf.update(leaf_of(value));
    objects.push_back(std::move(leaf));
    return;
  }
  std::int64_t position = 0;
  for (const auto& [key, child] : value.items()) {
    Json below = path;
    below.push_back(value.is_object() ? Json(key) : Json(position++));
    add_leaves(objects, below, child);
  }
}

Json path_of(const DocumentPlace& place) {
  Json path = Json::array();
  for (const std::string& key : place.keys()) path.push_back(key);
  return path;
}

/// A list of numbers or names is one item, though the place is in it: it is made anew.
bool mirror_in_leaf(Working& working, const DocumentPlace& place) {
  for (Json& item : working.change("objects")) {
    const Json path = item.value("path", Json::array());
    if (path.size() >= place.keys().size()) continue;
    std::vector<std::string> keys = place.keys();
    keys.resize(path.size());
    if (!begins(path, keys) || path.empty()) continue;
    const Json* value = &working.document("training");
    for (const std::string& key : keys) {
      value = value->is_array() ? &value->at(position_of(*value, key)) : &value->at(key);
    }
    item["value"] = *value;
    return true;
  }
  return false;
}

}  // namespace

void mirror_set(Working& working, const DocumentPlace& place, const Json& value) {
  if (!is_told(working, place)) return;
  if (mirror_in_leaf(working, place)) return;
  mirror_delete(working, place);
  add_leaves(working.change("objects"), path_of(place), value);
}

void mirror_delete(Working& working, const DocumentPlace& place) {
  if (!is_told(working, place)) return;
  each_below(working, place, [](Json&) { return false; });
}

void mirror_move(Working& working, const DocumentPlace& from, const DocumentPlace& to,
                 const Json& value) {
  if (!is_told(working, from)) {
    mirror_set(working, to, value);
    return;
  }
  if (!is_told(working, to)) {
    mirror_delete(working, from);
    return;
  }
  each_below(working, from, [&](Json& path) {
    Json moved = path_of(to);
    for (std::size_t i = from.keys().size(); i < path.size(); ++i) moved.push_back(path[i]);
    path = std::move(moved);
    return true;
  });
}

void mirror_rename(Working& working, const DocumentPlace& place, const std::string& to) {
  if (!is_told(working, place)) return;
  each_below(working, place, [&](Json& path) {
    path[place.keys().size() - 1] = to;
    return true;
  });
}

void mirror_wrap(Working& working, const DocumentPlace& place, const std::string& key) {
  if (!is_told(working, place)) return;
  each_below(working, place, [&](Json& path) {
    path.insert(path.begin() + static_cast<std::ptrdiff_t>(place.keys().size()), key);
    return true;
  });
}

void mirror_unwrap(Working& working, const DocumentPlace& place, const std::string& key) {
  if (!is_told(working, place)) return;
  each_below(working, place, [&](Json& path) {
    const std::size_t at = place.keys().size();
    if (path.size() > at && is_key(path[at], key)) path.erase(at);
    return true;
  });
}

}  // namespace cairn::detail::migrations
