#include <algorithm>

#include "pipeline/rules.hpp"
#include "pipeline/secrets.hpp"
#include "sources/url.hpp"

namespace cairn::detail {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kMask = "***";

/// A scalar's text as the JSON value that its key makes of it.
Json scalar_of(std::string_view text, Kind kind) {
  std::uint64_t count = 0;
  std::int64_t integer = 0;
  double number = 0;
  bool flag = false;
  if (kind == Kind::count && parse_count(text, count)) return count;
  if (kind == Kind::integer && parse_integer(text, integer)) return integer;
  if (kind == Kind::number && parse_number(text, number)) {
    if (number == static_cast<double>(static_cast<std::int64_t>(number))) {
      return static_cast<std::int64_t>(number);
    }
    return number;
  }
  if ((kind == Kind::flag || kind == Kind::flag_block) && parse_flag(text, flag)) return flag;
  return text;
}

/// A URL may carry a password, and a signature behind its "?"; a path may hold an "@".
std::string shown_text(const std::string& text) {
  if (holds_secret(text)) return std::string(kMask);
  return text.find(':') == std::string::npos ? text : masked_url(text);
}

Json shown(const Value& value, const Key& key) {
  if (value.secret) return kMask;
  if (value.type == Value::Type::scalar) {
    const Json scalar = scalar_of(value.text, key.kind);
    return scalar.is_string() ? Json(shown_text(value.text)) : scalar;
  }
  if (key.kind == Kind::pairs) {
    Json pairs = Json::object();
    for (const auto& [name, child] : value.entries) {
      pairs[name] = child.secret ? std::string(kMask) : shown_text(child.text);
    }
    return pairs;
  }
  if (value.type == Value::Type::mapping) return resolved_block(&value, *key.block);
  Json list = Json::array();
  for (const Value& item : value.items) {
    list.push_back(key.kind == Kind::blocks ? resolved_block(&item, *key.block)
                   : item.secret            ? Json(kMask)
                                            : Json(shown_text(item.text)));
  }
  return list;
}

void show_keys(const Value* value, std::span<const Key> keys, Json& json) {
  for (const Key& key : keys) {
    const Value* child = value == nullptr ? nullptr : value->find(key.name);
    if (child != nullptr && child->type != Value::Type::null) {
      json[std::string(key.name)] = shown(*child, key);
    } else if (!key.fallback.empty()) {
      json[std::string(key.name)] = scalar_of(key.fallback, key.kind);
    } else if (key.kind == Kind::block && key.block->types.empty()) {
      Json block = resolved_block(nullptr, *key.block);
      if (!block.empty()) json[std::string(key.name)] = std::move(block);
    }
  }
}

// ---- the schema

Json schema_of(const BlockRule& rule);

Json schema_of(const Key& key) {
  Json json;
  switch (key.kind) {
    case Kind::text:
      json["type"] = {"string", "number", "null"};
      json["minLength"] = 1;
      break;
    case Kind::any_text:
      json["type"] = {"string", "number", "null"};
      break;
    case Kind::flag:
      json["type"] = {"boolean", "null"};
      break;
    case Kind::count:
    case Kind::integer:
      json["type"] = {"integer", "null"};
      json["minimum"] = scalar_of(fmt::format("{:.0f}", key.least), Kind::integer);
      if (key.most < 1e18)
        json["maximum"] = scalar_of(fmt::format("{:.0f}", key.most), Kind::count);
      break;
    case Kind::number:
      json["type"] = {"number", "null"};
      json["minimum"] = scalar_of(fmt::format("{}", key.least), Kind::number);
      json["maximum"] = scalar_of(fmt::format("{}", key.most), Kind::number);
      break;
    case Kind::word:
      json["enum"] = Json::array();
      for (const auto word : key.words) json["enum"].push_back(word);
      break;
    case Kind::texts:
      json["type"] = {"array", "null"};
      json["minItems"] = 1;
      json["items"] = {{"type", {"string", "number"}}};
      break;
    case Kind::pairs:
      json["type"] = {"object", "null"};
      json["additionalProperties"] = {{"type", {"string", "number", "boolean"}}, {"minLength", 1}};
      break;
    case Kind::block:
      json = {{"anyOf", {schema_of(*key.block), {{"type", "null"}}}}};
      break;
    case Kind::blocks:
      json["type"] = {"array", "null"};
      json["items"] = schema_of(*key.block);
      break;
    case Kind::flag_block:
      json = {{"anyOf", {{{"type", {"boolean", "null"}}}, schema_of(*key.block)}}};
      break;
  }
  json["description"] = key.help;
  if (!key.fallback.empty()) json["default"] = scalar_of(key.fallback, key.kind);
  return json;
}

void add_keys(std::span<const Key> keys, Json& schema) {
  for (const Key& key : keys) {
    schema["properties"][std::string(key.name)] = schema_of(key);
    if (key.required) schema["required"].push_back(key.name);
  }
}

Json mapping_schema() { return {{"type", "object"}, {"additionalProperties", false}}; }

Json schema_of(const BlockRule& rule, const TypeRule& type) {
  Json schema = mapping_schema();
  schema["properties"]["type"] = {{"const", type.type}};
  if (type.type != rule.type_fallback) schema["required"].push_back("type");
  add_keys(type.keys, schema);
  add_keys(type.more, schema);
  return schema;
}

/// A type that a program registered.
Json foreign_schema(const BlockRule& rule) {
  Json known = Json::array();
  for (const TypeRule& type : rule.types) known.push_back(type.type);
  Json schema = {{"type", "object"}};
  schema["properties"]["type"] = {{"type", "string"}, {"not", {{"enum", known}}}};
  schema["required"] = {"type"};
  add_keys(rule.open, schema);
  schema["additionalProperties"] = {{"type", {"string", "number", "boolean", "null"}}};
  return schema;
}

Json schema_of(const BlockRule& rule) {
  if (!rule.types.empty()) {
    Json one_of = Json::array();
    for (const TypeRule& type : rule.types) one_of.push_back(schema_of(rule, type));
    if (rule.registered != nullptr) one_of.push_back(foreign_schema(rule));
    return {{"oneOf", std::move(one_of)}};
  }
  Json schema = mapping_schema();
  add_keys(rule.keys, schema);
  if (rule.notes) schema["patternProperties"]["^x-"] = Json::object();
  if (rule.sections) {
    schema["additionalProperties"] = true;  // no pattern can tell what is like a key
    Json inside = Json::array();
    for (const auto& [name, path] : nested_blocks()) inside.push_back(name);
    schema["propertyNames"] = {{"not", {{"enum", std::move(inside)}}}};
  }
  return schema;
}

}  // namespace

Json resolved_block(const Value* value, const BlockRule& rule) {
  Json json = Json::object();
  show_keys(value, rule.keys, json);
  if (value == nullptr || rule.types.empty()) return json;
  const auto name = type_of(*value, rule);
  json["type"] = name;
  if (const TypeRule* type = find_type(rule, name)) {
    show_keys(value, type->keys, json);
    show_keys(value, type->more, json);
    return json;
  }
  show_keys(value, rule.open, json);
  for (const auto& [key, child] : value->entries) {
    if (json.contains(key) || child.type != Value::Type::scalar) continue;
    json[key] = child.secret || sounds_secret(key) ? std::string(kMask) : shown_text(child.text);
  }
  return json;
}

Json json_schema() {
  Json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                 {"title", "The configuration of cairn"},
                 {"description",
                  "docs/configuration.md explains it. Interpolations (${...}) are replaced before "
                  "this schema applies."}};
  schema.update(schema_of(kDocument));
  return schema;
}

}  // namespace cairn::detail
