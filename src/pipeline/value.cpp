#include "pipeline/value.hpp"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <unordered_set>

namespace cairn::detail {
namespace {

/// Makes Values of nodes and counts them: aliases can make a small text very large.
class Expander {
 public:
  explicit Expander(const std::string& origin) : origin_(origin) {}

  Value expand(const YAML::Node& node, int level) {
    Value value;
    value.line = node.Mark().line + 1;
    const Place place{origin_, ""};
    if (++nodes_ > kMostNodes) place.refuse(value, "is too large", Errc::unsafe);
    if (level > kMostLevels) place.refuse(value, "is nested too deeply", Errc::unsafe);
    if (node.IsScalar()) {
      value.type = Value::Type::scalar;
      count_bytes(node.Scalar(), value);
      value.text = node.Scalar();
      // "!" is what the library says of quotes.
      value.quoted = node.Tag() == "!" || node.Tag() == "tag:yaml.org,2002:str";
    } else if (node.IsSequence()) {
      value.type = Value::Type::list;
      for (const auto& item : node) value.items.push_back(expand(item, level + 1));
    } else if (node.IsMap()) {
      value.type = Value::Type::mapping;
      expand_entries(node, level, value);
    }
    return value;
  }

 private:
  void count_bytes(const std::string& text, const Value& value) {
    bytes_ += text.size();
    if (bytes_ > kMostTextBytes) Place{origin_, ""}.refuse(value, "is too large", Errc::unsafe);
  }

  void expand_entries(const YAML::Node& node, int level, Value& value) {
    std::vector<Value> merged;
    std::unordered_set<std::string> names;
    for (const auto& entry : node) {
      Value at_key;
      at_key.line = entry.first.Mark().line + 1;
      if (!entry.first.IsScalar()) {
        Place{origin_, ""}.refuse(at_key, "has a key that is no word");
      }
      const std::string& key = entry.first.Scalar();
      count_bytes(key, at_key);
      Value child = expand(entry.second, level + 1);
      child.line = at_key.line;  // an empty value has no line of its own
      child.key_at = static_cast<std::size_t>(entry.first.Mark().pos);
      child.in_flow = node.Style() == YAML::EmitterStyle::Flow;
      if (key == "<<") {
        if (child.type != Value::Type::list) {
          merged.push_back(std::move(child));
        } else {
          for (Value& item : child.items) merged.push_back(std::move(item));
        }
        continue;
      }
      if (!names.insert(key).second) {
        Place{origin_, key}.refuse(at_key, "is given twice in one mapping");
      }
      value.entries.emplace_back(key, std::move(child));
    }
    // What is written wins over what is merged, and earlier ones over later ones.
    for (Value& source : merged) {
      if (source.type != Value::Type::mapping) {
        Place{origin_, "<<"}.refuse(source, "must be a mapping or a list of mappings");
      }
      for (auto& entry : source.entries) {
        if (Value* written = value.find(entry.first)) {
          written->shadows = true;
        } else {
          value.entries.push_back(std::move(entry));
        }
      }
    }
  }

  const std::string& origin_;
  std::size_t nodes_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace

const Value* Value::find(std::string_view key) const {
  const auto at =
      std::find_if(entries.begin(), entries.end(), [&](const auto& e) { return e.first == key; });
  return at == entries.end() ? nullptr : &at->second;
}

Value* Value::find(std::string_view key) {
  return const_cast<Value*>(std::as_const(*this).find(key));
}

Place Place::at(std::string_view name) const {
  return {origin, key.empty() ? std::string(name) : fmt::format("{}.{}", key, name)};
}

Place Place::at(std::size_t index) const { return {origin, fmt::format("{}[{}]", key, index)}; }

void Place::refuse(const Value& value, const std::string& why, Errc code) const {
  fail(code, "{}{}: {} {}", origin, value.line > 0 ? fmt::format(":{}", value.line) : "",
       key.empty() ? "the document" : fmt::format("'{}'", key), why);
}

Value parse_yaml(const std::string& text, const std::string& origin) {
  try {
    const auto documents = YAML::LoadAll(text);
    if (documents.empty()) return {};
    if (documents.size() > 1) fail(Errc::usage, "{}: holds more than one document", origin);
    return Expander(origin).expand(documents.front(), 0);
  } catch (const YAML::Exception& error) {
    fail(Errc::usage, "{}:{}: not valid YAML: {}", origin, error.mark.line + 1, error.msg);
  }
}

}  // namespace cairn::detail
