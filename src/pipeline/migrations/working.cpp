#include "pipeline/migrations/working.hpp"

#include <utility>

#include "base/json_text.hpp"
#include "base/throw.hpp"
#include "cairn/tensor_view.hpp"

namespace cairn::detail::migrations {

std::string Role::name_for(const std::string& other_parameter) const {
  return before + escape_component(other_parameter) + slot;
}

std::optional<Role> role_of(std::string_view name) {
  for (const std::string_view before : {"model/", "ema/", "module/"}) {
    if (!name.starts_with(before) || name.find('/', before.size()) != std::string_view::npos) {
      continue;
    }
    return Role{std::string(before), unescape_component(name.substr(before.size())), ""};
  }
  constexpr std::string_view kOptimizer = "optimizer/";
  const std::size_t slash = name.find('/', kOptimizer.size());
  if (!name.starts_with(kOptimizer) || slash == std::string_view::npos ||
      name.find('/', slash + 1) != std::string_view::npos) {
    return std::nullopt;
  }
  return Role{std::string(kOptimizer),
              unescape_component(name.substr(kOptimizer.size(), slash - kOptimizer.size())),
              std::string(name.substr(slash))};
}

Working::Working(const Manifest& manifest, Bytes few)
    : bytes(std::move(few)), texts_(manifest.documents) {
  items.reserve(manifest.tensors.size());
  for (std::size_t t = 0; t < manifest.tensors.size(); ++t) {
    items.push_back({manifest.tensors[t], t, std::nullopt});
  }
}

Working::Parsed& Working::parse(const std::string& name) {
  const auto [found, is_new] = parsed_.try_emplace(name);
  if (!is_new) return found->second;
  const auto text = texts_.find(name);
  if (text == texts_.end()) return found->second;
  found->second.json = parse_ordered(text->second);
  if (found->second.json.is_discarded()) {
    parsed_.erase(found);
    fail(Errc::corrupt, "the document '{}' is no JSON", name);
  }
  return found->second;
}

const Json& Working::document(const std::string& name) { return parse(name).json; }

Json& Working::change(const std::string& name) {
  Parsed& parsed = parse(name);
  parsed.changed = true;
  return parsed.json;
}

void Working::restore(const std::string& name, const std::optional<std::string>& text) {
  parsed_.erase(name);
  if (text) {
    texts_[name] = *text;
  } else {
    texts_.erase(name);
  }
}

std::map<std::string, std::string> Working::texts() const {
  std::map<std::string, std::string> texts = texts_;
  for (const auto& [name, parsed] : parsed_) {
    if (!parsed.changed) continue;
    if (parsed.json.is_null()) {
      texts.erase(name);
    } else {
      texts[name] = parsed.json.dump();
    }
  }
  return texts;
}

std::map<std::string, std::string> Working::aliases() {
  std::map<std::string, std::string> result;
  const Json& model = document("model");
  if (!model.is_object() || !model.contains("aliases") || !model["aliases"].is_object()) {
    return result;
  }
  for (const auto& [alias, name] : model["aliases"].items()) {
    if (name.is_string()) result[alias] = name.get<std::string>();
  }
  return result;
}

std::vector<std::string> Working::parameters() {
  std::vector<std::string> names;
  std::set<std::string> seen;
  for (const Item& item : items) {
    const auto role = role_of(item.entry.name);
    if (role && seen.insert(role->parameter).second) names.push_back(role->parameter);
  }
  for (const auto& [alias, name] : aliases()) {
    if (seen.insert(alias).second) names.push_back(alias);
  }
  return names;
}

}  // namespace cairn::detail::migrations
