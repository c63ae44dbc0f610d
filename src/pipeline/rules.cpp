#include "pipeline/rules.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/edit_distance.hpp"

namespace cairn::detail {
namespace {

std::string_view nearest(std::string_view word, const std::vector<std::string_view>& known) {
  return *std::min_element(known.begin(), known.end(), [&](auto a, auto b) {
    return edit_distance(word, a) < edit_distance(word, b);
  });
}

std::string quoted(std::span<const std::string_view> words) {
  std::vector<std::string> quoted;
  for (const auto word : words) quoted.push_back(fmt::format("'{}'", word));
  return fmt::format("{}", fmt::join(quoted, " or "));
}

std::string strip_underscores(std::string_view text) {
  std::string digits;
  for (const char c : text) {
    if (c != '_') digits += c;
  }
  return digits;
}

void check_scalar(const Value& value, const Key& key, const Place& place) {
  const std::string wanted = key.kind == Kind::word ? quoted(key.words) : std::string(key.what);
  const auto refuse = [&] { place.refuse(value, fmt::format("must be {}", wanted)); };
  if (value.type != Value::Type::scalar) refuse();
  std::uint64_t count = 0;
  std::int64_t integer = 0;
  double number = 0;
  bool flag = false;
  bool fine = true;
  const bool is_text = key.kind == Kind::text || key.kind == Kind::any_text ||
                       key.kind == Kind::word || key.kind == Kind::texts;
  if (value.quoted && !is_text) {
    place.refuse(value, fmt::format("must be {}, without quotes", wanted));
  }
  switch (key.kind) {
    case Kind::flag:
    case Kind::flag_block:
      fine = parse_flag(value.text, flag);
      break;
    case Kind::count:
      fine = parse_count(value.text, count) && static_cast<double>(count) >= key.least &&
             static_cast<double>(count) <= key.most;
      break;
    case Kind::integer:
      fine = parse_integer(value.text, integer) && static_cast<double>(integer) >= key.least &&
             static_cast<double>(integer) <= key.most;
      break;
    case Kind::number:
      fine = parse_number(value.text, number) && number >= key.least && number <= key.most;
      break;
    case Kind::word:
      fine = std::find(key.words.begin(), key.words.end(), value.text) != key.words.end();
      break;
    case Kind::any_text:
      break;
    default:
      fine = !value.text.empty();
  }
  if (!fine) refuse();
}

using Strangers = std::vector<std::string>*;

void check_list(const Value& value, const Key& key, const Place& place, Strangers strangers) {
  if (value.type != Value::Type::list) {
    place.refuse(value, fmt::format("must be {}", key.what));
  }
  if (key.kind == Kind::texts && value.items.empty()) {
    place.refuse(value, fmt::format("must be {} that is not empty", key.what));
  }
  for (std::size_t i = 0; i < value.items.size(); ++i) {
    const Value& item = value.items[i];
    if (key.kind == Kind::blocks) {
      check_block(item, *key.block, place.at(i), strangers);
    } else if (item.type != Value::Type::scalar || item.text.empty()) {
      place.at(i).refuse(item, "must be a text");
    }
  }
}

void check_pairs(const Value& value, const Key& key, const Place& place) {
  if (value.type != Value::Type::mapping) place.refuse(value, fmt::format("must be {}", key.what));
  for (const auto& [name, child] : value.entries) {
    if (child.type != Value::Type::scalar || child.text.empty()) {
      place.at(name).refuse(child, "must be a text");
    }
  }
}

void check_key(const Value& value, const Key& key, const Place& place, Strangers strangers) {
  if (value.type == Value::Type::scalar && value.text == "\?\?\?") {
    place.refuse(value, "is '\?\?\?': give it a value");
  }
  switch (key.kind) {
    case Kind::block:
      return check_block(value, *key.block, place, strangers);
    case Kind::texts:
    case Kind::blocks:
      return check_list(value, key, place, strangers);
    case Kind::pairs:
      return check_pairs(value, key, place);
    case Kind::flag_block:
      if (value.type == Value::Type::mapping) {
        return check_block(value, *key.block, place, strangers);
      }
      return check_scalar(value, key, place);
    default:
      return check_scalar(value, key, place);
  }
}

/// All keys that the block may have.
std::vector<const Key*> keys_of(const BlockRule& rule, const TypeRule* type) {
  std::vector<const Key*> keys;
  const auto add = [&](std::span<const Key> some) {
    for (const Key& key : some) keys.push_back(&key);
  };
  add(rule.keys);
  if (type != nullptr) {
    add(type->keys);
    add(type->more);
  } else if (rule.registered != nullptr) {
    add(rule.open);
  }
  return keys;
}

/// A slip of the pen, not another word.
bool is_near(std::string_view word, std::string_view known) {
  return edit_distance(word, known) <= (known.size() > 4 ? 2U : 1U);
}

void check_type(const Value& value, const BlockRule& rule, const Place& place,
                Strangers strangers) {
  const Value* type = value.find("type");
  std::vector<std::string_view> known;
  for (const TypeRule& each : rule.types) known.push_back(each.type);
  const std::vector<std::string> registered =
      rule.registered != nullptr ? rule.registered() : std::vector<std::string>{};
  known.insert(known.end(), registered.begin(), registered.end());
  if (type == nullptr || type->type == Value::Type::null) {
    if (rule.type_fallback.empty()) {
      place.refuse(value, fmt::format("needs a 'type': {}", quoted(known)));
    }
    return;
  }
  if (type->type == Value::Type::scalar &&
      std::find(known.begin(), known.end(), type->text) != known.end()) {
    return;
  }
  if (type->type != Value::Type::scalar) place.at("type").refuse(*type, "must be a word");
  const std::string_view near = nearest(type->text, known);
  if (strangers != nullptr && rule.registered != nullptr && !is_near(type->text, near)) {
    strangers->push_back(
        fmt::format("{}:{}: '{}' is '{}', which only a program that registers it "
                    "can check",
                    place.origin, type->line, place.at("type").key, type->text));
    return;
  }
  place.at("type").refuse(*type,
                          fmt::format("must be {}; did you mean '{}'?", quoted(known), near));
}

/// Whether a key of another type of the block; the error then says so.
const TypeRule* other_type_with(const BlockRule& rule, std::string_view name) {
  for (const TypeRule& type : rule.types) {
    for (const auto keys : {type.keys, type.more}) {
      if (std::any_of(keys.begin(), keys.end(), [&](const Key& k) { return k.name == name; })) {
        return &type;
      }
    }
  }
  return nullptr;
}

/// Whether the name of a section is, or was to be, that of one of the document's blocks. In a long
/// one a letter more may have been left out ("chckpnt").
bool is_top(std::string_view name, std::string_view block) {
  return is_near(name, block) ||
         (block.size() >= 10 && name.size() < block.size() && edit_distance(name, block) == 3);
}

/// The same of a block inside these: they are words of every day, so that less is taken for a slip.
bool is_nested(std::string_view name, std::string_view block) {
  return edit_distance(name, block) <= (block.size() > 5 ? 1U : 0U);
}

void check_names(const Value& value, const BlockRule& rule, const std::vector<const Key*>& keys,
                 bool typed, bool foreign, const Place& place) {
  std::vector<std::string_view> known;
  for (const Key* key : keys) known.push_back(key->name);
  if (typed) known.push_back("type");
  for (const auto& [name, child] : value.entries) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    if (rule.notes && name.starts_with("x-")) continue;
    if (rule.sections && is_foreign_section(name)) continue;
    if (foreign) {
      if (child.type == Value::Type::scalar || child.type == Value::Type::null) continue;
      place.at(name).refuse(child, "must be a text: options of registered types are");
    }
    if (const TypeRule* other = other_type_with(rule, name)) {
      place.at(name).refuse(child, fmt::format("is a key of the type '{}', not of '{}'",
                                               other->type, type_of(value, rule)));
    }
    if (rule.sections) {
      for (const auto& [nested, path] : nested_blocks()) {
        if (!is_nested(name, nested)) continue;
        place.at(name).refuse(child, fmt::format("is unknown; did you mean '{}'?", path));
      }
    }
    place.at(name).refuse(child,
                          fmt::format("is unknown; did you mean '{}'?", nearest(name, known)));
  }
}

}  // namespace

bool is_foreign_section(std::string_view name) {
  const auto nested = nested_blocks();
  return std::none_of(kDocument.keys.begin(), kDocument.keys.end(),
                      [&](const Key& key) { return is_top(name, key.name); }) &&
         std::none_of(nested.begin(), nested.end(),
                      [&](const auto& block) { return is_nested(name, block.first); });
}

std::vector<std::pair<std::string, std::string>> nested_blocks() {
  std::vector<std::pair<std::string, std::string>> blocks;
  for (const Key& top : kDocument.keys) {
    for (const Key& key : top.block->keys) {
      if (key.block == nullptr) continue;
      blocks.emplace_back(key.name, fmt::format("{}.{}", top.name, key.name));
    }
  }
  return blocks;
}

bool parse_integer(std::string_view text, std::int64_t& integer) {
  std::uint64_t count = 0;
  const bool negative = text.starts_with('-');
  if (!parse_count(negative ? text.substr(1) : text, count) || count > 1'000'000'000'000'000'000) {
    return false;
  }
  integer = negative ? -static_cast<std::int64_t>(count) : static_cast<std::int64_t>(count);
  return true;
}

bool parse_count(std::string_view text, std::uint64_t& count) {
  const std::string digits = strip_underscores(text);
  if (text.starts_with('_') || text.ends_with('_')) return false;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
  return error == std::errc{} && end == digits.data() + digits.size() && !digits.empty();
}

bool parse_number(std::string_view text, double& number) {
  const std::string digits = strip_underscores(text);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return error == std::errc{} && end == digits.data() + digits.size() && std::isfinite(number);
}

bool parse_flag(std::string_view text, bool& flag) {
  constexpr std::string_view kTrue[] = {"true", "True", "TRUE", "yes", "Yes",
                                        "YES",  "on",   "On",   "ON"};
  constexpr std::string_view kFalse[] = {"false", "False", "FALSE", "no", "No",
                                         "NO",    "off",   "Off",   "OFF"};
  flag = std::find(std::begin(kTrue), std::end(kTrue), text) != std::end(kTrue);
  return flag || std::find(std::begin(kFalse), std::end(kFalse), text) != std::end(kFalse);
}

std::string_view type_of(const Value& value, const BlockRule& rule) {
  const Value* type = value.find("type");
  return type == nullptr || type->type == Value::Type::null ? rule.type_fallback
                                                            : std::string_view(type->text);
}

const TypeRule* find_type(const BlockRule& rule, std::string_view type) {
  const auto at = std::find_if(rule.types.begin(), rule.types.end(),
                               [&](const TypeRule& each) { return each.type == type; });
  return at == rule.types.end() ? nullptr : &*at;
}

void check_block(const Value& value, const BlockRule& rule, const Place& place,
                 std::vector<std::string>* strangers) {
  if (value.type != Value::Type::mapping) place.refuse(value, "must be a mapping");
  const bool typed = !rule.types.empty();
  if (typed) check_type(value, rule, place, strangers);
  const TypeRule* type = typed ? find_type(rule, type_of(value, rule)) : nullptr;
  const auto keys = keys_of(rule, type);
  check_names(value, rule, keys, typed, typed && type == nullptr, place);
  for (const Key* key : keys) {
    const Value* child = value.find(key->name);
    const bool absent = child == nullptr || child->type == Value::Type::null;
    if (!absent) check_key(*child, *key, place.at(key->name), strangers);
    if (absent && key->required) {
      place.refuse(value, fmt::format("needs a '{}'{}", key->name,
                                      key->kind == Kind::word ? ": " + quoted(key->words) : ""));
    }
  }
}

}  // namespace cairn::detail
