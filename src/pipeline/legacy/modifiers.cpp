#include <fmt/format.h>

#include "pipeline/legacy/plan.hpp"
#include "pipeline/legacy/references.hpp"
#include "pipeline/rules.hpp"

namespace cairn::detail::legacy {
namespace {

constexpr const char* kFreeze = "training.submodules_to_freeze";
constexpr const char* kAveraging = "training.swa";
/// From the module that a checkpoint holds to the network in it.
constexpr std::string_view kNetwork = "model.model.";
constexpr int kFirstExact = 15;  ///< releases that took names as paths from the network

/// The names in the list, wherever the document keeps it; nothing where it cannot tell.
std::optional<std::vector<std::string>> names_of(Reader& reader) {
  const Value* value = reader.find(kFreeze);
  std::string holder = kFreeze;
  for (int steps = 0; steps < 8 && value != nullptr && value->type == Value::Type::scalar;
       ++steps) {
    std::string target;
    replace_references(value->text, parent_of(holder), [&](const std::string& path) {
      target = path;
      return std::optional<std::string>();
    });
    if (value->text.find("${") != 0 || target.empty()) return std::nullopt;
    holder = target;
    value = reader.find(target);
  }
  if (value == nullptr || value->type == Value::Type::scalar) return std::nullopt;
  std::vector<std::string> names;
  for (const Value& item : value->items) {
    if (item.type != Value::Type::scalar || item.text.empty()) return std::nullopt;
    names.push_back(replace_references(item.text, holder,
                                       [](const std::string& path) { return "${" + path + "}"; }));
  }
  if (value->type == Value::Type::mapping) return std::nullopt;
  return names;
}

/// Whether the release looked for names at any depth; then one with a dot matched nothing.
enum class Names { any_depth, exact, unknown };

Names names_in(const Version& version) {
  if (version.minor >= kFirstExact) return Names::exact;
  if (version.minor >= 0 || version.era < Era::e2) return Names::any_depth;
  return Names::unknown;
}

void plan_freeze(Reader& reader, Plan& plan) {
  const Value* value = reader.find(kFreeze);
  if (value == nullptr || value->type == Value::Type::null) return;
  const auto names = names_of(reader);
  if (!names) {
    reader.error("invalid-value", {kFreeze},
                 "must be a list of names, which the migration completes: write them out");
    return;
  }
  const Names kind = names_in(plan.version);
  Json layers = Json::array();
  bool any_depth = false;
  for (const std::string& name : *names) {
    const bool whole = name.starts_with(kNetwork);
    const bool dotted = name.find('.') < name.find("${") && !whole;
    if (dotted && kind == Names::any_depth) {
      reader.warn("freeze-path-ignored", {kFreeze},
                  fmt::format("names '{}', which froze nothing up to release 0.14, and is left "
                              "out; add '{}{}' to the new list to freeze it",
                              name, kNetwork, name));
      plan.left_out.push_back(fmt::format("{}: '{}' froze nothing and is left out", kFreeze, name));
      continue;
    }
    if (dotted && kind == Names::unknown) {
      reader.warn("freeze-path", {kFreeze},
                  fmt::format("names '{}', which froze nothing up to release 0.14: the new list "
                              "freezes it; --from-version tells which release it was",
                              name));
    }
    any_depth = any_depth || (!dotted && !whole && kind != Names::exact);
    layers.push_back(whole ? name : std::string(kNetwork) + name);
  }
  if (any_depth) {
    reader.warn("freeze-any-depth", {kFreeze},
                "matched modules of that name at any depth up to release 0.14: the new names are "
                "exact paths from the outer module, and freeze nothing else");
  }
  if (layers.empty() && !names->empty()) {
    reader.error(
        "freeze-nothing", {kFreeze},
        "names nothing that the release could freeze: take the list out, or write the names "
        "in full, from the outer module, to freeze what they say");
    return;
  }
  plan.freeze = layers;
  if (!layers.empty()) plan.modifiers.push_back({{"type", "freeze"}, {"layers", layers}});
  if (layers.empty()) return;
  plan.comments["model_modifier.modifiers"].push_back(
      fmt::format("was {}: now full names, from the outer module", kFreeze));
  reader.move(kFreeze, "model_modifier.modifiers", "names from the outer module");
}

void plan_averaging(Reader& reader, Plan& plan) {
  if (!reader.says(kAveraging)) return;
  const Value* value = reader.find(kAveraging);
  std::string settings;
  for (const auto& [key, child] : value->entries) {
    const bool text = child.type == Value::Type::scalar;
    settings += fmt::format("{}{}: {}", settings.empty() ? "" : ", ", key,
                            text                              ? child.text
                            : child.type == Value::Type::null ? "null"
                                                              : "...");
  }
  reader.warn("swa-lossy", {kAveraging},
              fmt::format("({}) has no exact counterpart and is left out: weights are no longer "
                          "averaged unless the trainer is told so by its own means",
                          settings));
  plan.left_out.push_back(fmt::format(
      "{} ({}) is left out: averaging of weights has no exact counterpart", kAveraging, settings));
  reader.move(kAveraging, "", "averaging of weights has no exact counterpart");
}

}  // namespace

void plan_modifiers(Reader& reader, Plan& plan) {
  plan_freeze(reader, plan);
  plan_averaging(reader, plan);
}

}  // namespace cairn::detail::legacy
