#include <algorithm>
#include <utility>

#include "base/throw.hpp"
#include "pipeline/migrations/mirror.hpp"
#include "pipeline/migrations/steps.hpp"

namespace cairn::detail::migrations {
namespace {

/// Changes the key of an object's entry where it stands.
void rename_key(Json& object, const std::string& key, const std::string& to) {
  Json result = Json::object();
  for (const auto& [name, value] : object.items())
    result[name == key ? to : name] = std::move(value);
  object = std::move(result);
}

/// The mapping that holds the value at a place, or could. Errors: not_found; an element of a list
/// is none that could go elsewhere.
Json& parent_of(Working& working, const DocumentPlace& place) {
  if (place.is_document()) {
    fail(Errc::usage, "'{}' is a whole document: name a key in it", place.text());
  }
  Json* parent = place.find_parent(working.change(place.document()));
  if (parent == nullptr || !parent->is_object()) {
    fail(Errc::not_found, "'{}': there is no mapping that it could be in", place.text());
  }
  return *parent;
}

void set(Working& working, const DocumentPlace& place, const Json& value) {
  if (place.is_document()) {
    working.change(place.document()) = value;
  } else if (Json* found = place.find(working.change(place.document()))) {
    *found = value;  // also in a list
  } else {
    parent_of(working, place)[place.last()] = value;
  }
  mirror_set(working, place, value);
}

void remove(Working& working, const DocumentPlace& place) {
  if (place.is_document()) {
    working.change(place.document()) = nullptr;
  } else {
    parent_of(working, place).erase(place.last());
  }
  mirror_delete(working, place);
}

void move(Working& working, const DocumentPlace& from, const DocumentPlace& to) {
  if (to.find(working.change(to.document())) != nullptr &&
      !(to.is_document() && working.document(to.document()).is_null())) {
    fail(Errc::mismatch, "there is something at '{}' already", to.text());
  }
  const Json value = *from.find(working.change(from.document()));
  if (!to.is_document()) parent_of(working, to);  // before anything is taken away
  if (from.is_document()) {
    working.change(from.document()) = nullptr;
  } else {
    parent_of(working, from).erase(from.last());
  }
  if (to.is_document()) {
    working.change(to.document()) = value;
  } else {
    parent_of(working, to)[to.last()] = value;
  }
  mirror_move(working, from, to, value);
}

void change_key(Working& working, const DocumentPlace& place, const std::string& to) {
  Json& parent = parent_of(working, place);
  if (parent.contains(to)) {
    fail(Errc::mismatch, "there is a key '{}' beside '{}' already", to, place.text());
  }
  rename_key(parent, place.last(), to);
  mirror_rename(working, place, to);
}

void wrap(Working& working, const DocumentPlace& place, const std::string& key) {
  Json& value = *place.find(working.change(place.document()));
  Json wrapped = Json::object();
  wrapped[key] = std::move(value);
  value = std::move(wrapped);
  mirror_wrap(working, place, key);
}

void unwrap(Working& working, const DocumentPlace& place, const std::string& key) {
  Json& value = *place.find(working.change(place.document()));
  if (!value.is_object() || value.size() != 1 || !value.contains(key)) {
    fail(Errc::mismatch, "'{}' is no mapping with the one key '{}'", place.text(), key);
  }
  Json inner = std::move(value[key]);
  value = std::move(inner);
  mirror_unwrap(working, place, key);
}

/// Whether `name` is `outer` or lies in that module.
bool is_in(const std::string& name, const std::string& outer) {
  return name.starts_with(outer) && (name.size() == outer.size() || name[outer.size()] == '.');
}

}  // namespace

Outcome document_step(Working& working, const Json& step) {
  const std::string type = step.at("type");
  const DocumentPlace place(step.at(type == "move" ? "from" : "at").get<std::string>());
  Outcome outcome;
  if (type == "set") {
    set(working, place, step.at("value"));
    add_example(outcome, fmt::format("{} = {}", place.text(), step["value"].dump()));
    return outcome;
  }
  const bool there = working.has_document(place.document()) &&
                     place.find(working.change(place.document())) != nullptr;
  if (!there) {
    if (is_optional(step)) return outcome;
    fail(Errc::not_found, "there is nothing at '{}'; 'optional: true' lets that pass",
         place.text());
  }
  std::string to;
  if (type == "delete") {
    remove(working, place);
  } else if (type == "move") {
    to = step.at("to");
    move(working, place, DocumentPlace(to));
  } else if (type == "rename_key") {
    to = step.at("to");
    change_key(working, place, to);
  } else if (type == "wrap_value") {
    to = place.text() + "." + step.at("key").get<std::string>();
    wrap(working, place, step["key"].get<std::string>());
  } else {
    unwrap(working, place, step.at("key").get<std::string>());
  }
  add_example(outcome, to.empty() ? place.text() : fmt::format("{} -> {}", place.text(), to));
  return outcome;
}

/// Objects of classes that cairn does not know are records: their classes are only names.
Outcome class_step(Working& working, const Json& step) {
  Outcome outcome;
  const bool drops = step.at("type") == "drop_class";
  std::map<std::string, std::string> names;
  if (drops) {
    for (const Json& name : step.at("names")) names[name.get<std::string>()];
  } else {
    names = step.at("names").get<std::map<std::string, std::string>>();
  }
  // The longest that fits, so that a class goes before its module.
  const auto rule_for = [&](const std::string& name) {
    auto best = names.end();
    for (auto rule = names.begin(); rule != names.end(); ++rule) {
      if (!is_in(name, rule->first)) continue;
      if (best == names.end() || rule->first.size() > best->first.size()) best = rule;
    }
    return best;
  };
  const auto follow = [&](Json& list, auto&& text_in) {
    Json kept = Json::array();
    for (Json& item : list) {
      Json* text = text_in(item);
      const auto rule =
          text != nullptr && text->is_string() ? rule_for(text->get<std::string>()) : names.end();
      if (rule != names.end()) {
        const std::string old = text->get<std::string>();
        const std::string now = drops ? "" : rule->second + old.substr(rule->first.size());
        add_example(outcome, drops ? old : fmt::format("{} -> {}", old, now));
        if (drops) continue;
        *text = now;
      }
      kept.push_back(std::move(item));
    }
    list = std::move(kept);
  };
  if (working.document("opaque").is_array()) {
    follow(working.change("opaque"), [](Json& item) -> Json* {
      return item.is_object() && item.contains("class") ? &item["class"] : nullptr;
    });
  }
  if (working.document("globals").is_array()) {
    follow(working.change("globals"), [](Json& item) { return &item; });
  }
  if (outcome.changed == 0 && !is_optional(step)) {
    fail(Errc::not_found, "no opaque object has a class in '{}'; 'optional: true' lets that pass",
         names.begin()->first);
  }
  return outcome;
}

}  // namespace cairn::detail::migrations
