#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <system_error>

#include "base/bounded_regex.hpp"
#include "base/sha256.hpp"
#include "base/throw.hpp"
#include "os/file.hpp"
#include "pipeline/document.hpp"
#include "pipeline/migrations/migration.hpp"
#include "pipeline/migrations/pattern.hpp"
#include "pipeline/migrations/place.hpp"
#include "pipeline/migrations/rules.hpp"

namespace cairn::detail::migrations {
namespace {

namespace fs = std::filesystem;

/// A value of the user's own, as YAML's core schema reads it. The document was parsed before, so
/// that its size is known to be bounded.
Json json_of(const YAML::Node& node) {
  if (node.IsSequence()) {
    Json list = Json::array();
    for (const auto& item : node) list.push_back(json_of(item));
    return list;
  }
  if (node.IsMap()) {
    Json object = Json::object();
    for (const auto& entry : node) object[entry.first.Scalar()] = json_of(entry.second);
    return object;
  }
  if (!node.IsScalar()) return nullptr;
  const std::string& text = node.Scalar();
  if (node.Tag() == "!") return text;  // quoted
  if (text == "true" || text == "false") return text == "true";
  const char* end = text.data() + text.size();
  std::int64_t integer = 0;
  if (const auto read = std::from_chars(text.data(), end, integer);
      read.ec == std::errc() && read.ptr == end) {
    return integer;
  }
  double number = 0;
  if (text.find_first_not_of("+-.0123456789eE") == std::string::npos &&
      parse_number(text, number)) {
    return number;
  }
  return text;
}

Json numbers_of(const Value& list, const Place& place) {
  Json numbers = Json::array();
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    std::uint64_t number = 0;
    if (!parse_count(list.items[i].text, number)) {
      place.at(i).refuse(list.items[i], "must be a whole number");
    }
    numbers.push_back(number);
  }
  return numbers;
}

/// A step's keys with the types that they stand for; what is absent is filled in.
Json step_of(const Value& value, const Place& place) {
  Json step = Json::object();
  for (const auto& [key, child] : value.entries) {
    if (key == "value") continue;  // of any form
    if (child.type == Value::Type::null) {
      continue;
    } else if (key == "optional") {
      bool flag = false;
      parse_flag(child.text, flag);
      if (flag) step[key] = true;
    } else if (key == "dim") {
      std::uint64_t number = 0;
      parse_count(child.text, number);
      step[key] = number;
    } else if (key == "sizes" || key == "order") {
      step[key] = numbers_of(child, place.at(key));
    } else if (child.type == Value::Type::list) {
      step[key] = Json::array();
      for (const Value& item : child.items) step[key].push_back(item.text);
    } else if (child.type == Value::Type::mapping) {
      step[key] = Json::object();
      for (const auto& [name, item] : child.entries) step[key][name] = item.text;
    } else {
      step[key] = child.text;
    }
  }
  return step;
}

/// Compiles what a step will compile, so that a mistake is told with its line.
void check_patterns(const Json& step) {
  const std::string type = step.at("type");
  if (type == "rename") {
    std::map<std::string, std::int64_t> values;
    const Json words = step.value("values", Json::object());
    for (const auto& [word, at] : words.items()) {
      values.emplace(word, 1);
      DocumentPlace(at.get<std::string>());
    }
    for (const auto& [from, to] : step.at("names").items()) {
      NameTemplate(to.get<std::string>(), NamePattern(from), values);
    }
    return;
  }
  if (type == "rename_regex") {
    BoundedRegex(step.at("from").get<std::string>(), "'from'");
    if (step.contains("back")) {
      BoundedRegex(step["back"].at("from").get<std::string>(), "'back.from'");
    }
    return;
  }
  for (const char* key : {"at", "order_at"}) {
    if (step.contains(key)) DocumentPlace(step[key].get<std::string>());
  }
  if (type == "move") {
    DocumentPlace(step.at("from").get<std::string>());
    DocumentPlace(step.at("to").get<std::string>());
  }
  if (type == "rename_class" || type == "drop_class") return;
  std::vector<NamePattern> parts;
  if (step.contains("name")) parts.emplace_back(step["name"].get<std::string>());
  for (const Json& name : step.value("names", Json::array())) {
    parts.emplace_back(name.get<std::string>());
  }
  if (type == "split") {
    for (const Json& into : step.at("into")) {
      NameTemplate(into.get<std::string>(), parts.front(), {});
    }
    const std::size_t sizes = step.value("sizes", step.at("into")).size();
    if (sizes != step.at("into").size()) {
      fail(Errc::usage, "there are {} sizes for {} parts", sizes, step.at("into").size());
    }
  }
  if (type == "merge") {
    for (std::size_t i = 1; i < parts.size(); ++i) {
      NameTemplate(step.at("names")[i].get<std::string>(), parts.front(), {});
    }
    NameTemplate(step.at("into").get<std::string>(), parts.front(), {});
  }
  if (type == "permute") {
    const int orders = static_cast<int>(step.contains("order")) +
                       static_cast<int>(step.contains("order_at")) +
                       static_cast<int>(step.contains("order_tensor"));
    if (orders != 1) fail(Errc::usage, "give one of 'order', 'order_at' and 'order_tensor'");
  }
}

/// What the rules say of values holds for mappings of a known form; what `set` puts down has none.
Value without_values(Value document, const Place& place) {
  Value* steps = document.find("steps");
  if (steps == nullptr) return document;
  for (std::size_t i = 0; i < steps->items.size(); ++i) {
    Value& step = steps->items[i];
    const Value* type = step.find("type");
    if (type == nullptr || type->text != "set") continue;
    const auto found = std::find_if(step.entries.begin(), step.entries.end(),
                                    [](const auto& entry) { return entry.first == "value"; });
    if (found == step.entries.end()) {
      place.at("steps").at(i).refuse(step, "needs a 'value'");
    }
    step.entries.erase(found);
  }
  return document;
}

}  // namespace

Migration parse_migration(const std::string& yaml, const std::string& name,
                          const std::string& origin) {
  const Value document = parse_yaml(yaml, origin);
  const Place place{origin, ""};
  check_block(without_values(document, place), kMigrationRule, place);
  Migration migration;
  migration.name = name;
  migration.version = document.find("version")->text;
  if (const Value* text = document.find("description")) migration.description = text->text;
  if (const Value* flag = document.find("final")) parse_flag(flag->text, migration.is_final);
  const Value* steps = document.find("steps");
  for (std::size_t i = 0; steps != nullptr && i < steps->items.size(); ++i) {
    const Place at = place.at("steps").at(i);
    Json step = step_of(steps->items[i], at);
    if (step.at("type") == "set") step["value"] = json_of(YAML::Load(yaml)["steps"][i]["value"]);
    try {
      check_patterns(step);
    } catch (const Error& error) {
      at.refuse(steps->items[i], fmt::format("can't be understood: {}", error.what()));
    }
    migration.places.push_back(fmt::format("{}:{}: '{}' ({})", origin, steps->items[i].line, at.key,
                                           step.at("type").get<std::string>()));
    migration.steps.push_back(std::move(step));
  }
  if (migration.is_final && !migration.steps.empty()) {
    place.at("final").refuse(*document.find("final"),
                             "is true, and there are steps: no file ever gets them");
  }
  const Json meaning{
      {"version", migration.version}, {"final", migration.is_final}, {"steps", migration.steps}};
  migration.signature = to_hex(sha256_of(meaning.dump()));
  return migration;
}

std::vector<Migration> read_migrations(const fs::path& directory) {
  std::error_code error;
  if (!fs::is_directory(directory, error)) {
    fail(Errc::not_found, "'{}' is no directory of migrations", directory.string());
  }
  std::vector<std::pair<std::uint64_t, fs::path>> files;
  for (const fs::directory_entry& entry : entries_of(directory)) {
    const fs::path& path = entry.path();
    if (path.extension() != ".yaml" && path.extension() != ".yml") continue;
    const std::string stem = path.stem().string();
    std::uint64_t number = 0;
    const auto read = std::from_chars(stem.data(), stem.data() + stem.size(), number);
    if (read.ec != std::errc() || read.ptr == stem.data() + stem.size() || *read.ptr != '_') {
      fail(Errc::usage,
           "'{}': migrations are called NUMBER_WORDS.yaml, and run in the order of "
           "their numbers",
           path.string());
    }
    files.emplace_back(number, path);
  }
  if (files.empty()) {
    fail(Errc::not_found, "'{}' holds no migration (NUMBER_WORDS.yaml)", directory.string());
  }
  std::sort(files.begin(), files.end());
  std::vector<Migration> migrations;
  for (std::size_t i = 0; i < files.size(); ++i) {
    const auto& [number, path] = files[i];
    if (i > 0 && files[i - 1].first == number) {
      fail(Errc::usage, "'{}' and '{}' have one number", files[i - 1].second.string(),
           path.filename().string());
    }
    migrations.push_back(
        parse_migration(read_configuration(path), path.stem().string(), path.string()));
  }
  return migrations;
}

int compare_versions(const std::string& a, const std::string& b) {
  std::size_t i = 0;
  std::size_t j = 0;
  while (i < a.size() || j < b.size()) {
    const auto next = [](const std::string& text, std::size_t& at) {
      const std::size_t end = std::min(text.find('.', at), text.size());
      const std::string part = at < text.size() ? text.substr(at, end - at) : std::string("0");
      at = std::min(end + 1, text.size());
      return part;
    };
    const std::string first = next(a, i);
    const std::string second = next(b, j);
    std::uint64_t x = 0;
    std::uint64_t y = 0;
    const auto whole = [](const std::string& part, std::uint64_t& number) {
      const auto read = std::from_chars(part.data(), part.data() + part.size(), number);
      return read.ec == std::errc() && read.ptr == part.data() + part.size();
    };
    if (whole(first, x) && whole(second, y)) {
      if (x != y) return x < y ? -1 : 1;
    } else if (first != second) {
      return first < second ? -1 : 1;
    }
  }
  return 0;
}

}  // namespace cairn::detail::migrations
