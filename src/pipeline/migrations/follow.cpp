#include "pipeline/migrations/follow.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include "base/throw.hpp"
#include "pipeline/migrations/numbers.hpp"

namespace cairn::detail::migrations {
namespace {

void follow_model(Working& working, const NameChanges& changes) {
  if (!working.document("model").is_object()) return;
  Json& model = working.change("model");
  if (model.contains("aliases") && model["aliases"].is_object()) {
    Json aliases = Json::object();
    for (const auto& [alias, name] : model["aliases"].items()) {
      const auto target = names_now(changes, name.is_string() ? name.get<std::string>() : "");
      for (const std::string& each : names_now(changes, alias)) {
        if (target.size() == 1 && target[0] != each) aliases[each] = target[0];
      }
    }
    model["aliases"] = std::move(aliases);
  }
  if (model.contains("quantized") && model["quantized"].is_object()) {
    Json quantized = Json::object();
    for (const auto& [name, value] : model["quantized"].items()) {
      for (const std::string& each : names_now(changes, name)) quantized[each] = value;
    }
    model["quantized"] = std::move(quantized);
  }
}

void follow_optimizer(Working& working, const NameChanges& changes) {
  if (!working.document("optimizer").is_object()) return;
  Json& optimizer = working.change("optimizer");
  std::set<std::string> seen;
  if (optimizer.contains("param_groups") && optimizer["param_groups"].is_array()) {
    for (Json& group : optimizer["param_groups"]) {
      if (group.is_object() && group.contains("params")) {
        group["params"] = followed(group["params"], changes, seen);
      }
    }
  }
  std::set<std::string> own;
  if (optimizer.contains("parameters")) {
    optimizer["parameters"] = followed(optimizer["parameters"], changes, own);
  }
}

/// An entry of the tree, for each of what its tensor became.
template <class Add>
void follow_item(const Json& item, const Role& role, const NameChanges& changes,
                 const std::vector<StateKeys>& optimizers, Add&& add) {
  const Json& path = item.at(1);
  const auto targets = names_now(changes, role.parameter);
  if (role.is_slot()) {
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const auto to = path_now(optimizers, path, i);
      if (targets.size() > 1 && !to) {
        fail(Errc::unsupported, "it is not known how the state at {} could be divided",
             path.dump());
      }
      add(role.name_for(targets[i]), to.value_or(path));
    }
    return;
  }
  // The last key is the parameter's name, or that of one that is tied to it.
  const bool named = !path.empty() && path.back().is_string();
  const std::string key = named ? path.back().get<std::string>() : role.parameter;
  const bool tied = key != role.parameter;
  if (tied && targets.size() > 1) {
    fail(Errc::unsupported, "'{}' is at {}, where its parts would have no names", role.parameter,
         path.dump());
  }
  for (const std::string& each : names_now(changes, key)) {
    if (tied && targets.empty()) continue;
    Json to = path;
    if (named && each != key) to.back() = each;
    add(role.name_for(tied ? targets[0] : each), std::move(to));
  }
}

void follow_tree(Working& working, const NameChanges& changes,
                 const std::vector<StateKeys>& optimizers) {
  if (!working.document("tree").is_array()) return;
  Json tree = Json::array();
  std::set<std::string> seen;
  const auto add = [&](std::string name, Json path) {
    if (!seen.insert(path.dump()).second) return;
    tree.push_back(Json::array({std::move(name), std::move(path)}));
  };
  for (const Json& item : working.document("tree")) {
    const auto& name = item.at(0).get_ref<const std::string&>();
    if (const auto role = role_of(name)) {
      follow_item(item, *role, changes, optimizers, add);
    } else {
      add(name, path_now(optimizers, item.at(1), 0).value_or(item.at(1)));
    }
  }
  working.change("tree") = std::move(tree);
}

}  // namespace

std::vector<std::string> names_now(const NameChanges& changes, const std::string& name) {
  const auto found = changes.find(name);
  return found == changes.end() ? std::vector<std::string>{name} : found->second;
}

Json followed(const Json& list, const NameChanges& changes, std::set<std::string>& seen) {
  Json result = Json::array();
  std::set<std::string> here;
  for (const Json& name : list) {
    if (!name.is_string()) {
      result.push_back(name);
      continue;
    }
    for (const std::string& each : names_now(changes, name.get<std::string>())) {
      if (!here.insert(each).second) continue;  // the next part of a whole
      if (!seen.insert(each).second) {
        fail(Errc::mismatch, "the parts of '{}' are in different groups of the optimizer", each);
      }
      result.push_back(each);
    }
  }
  return result;
}

void require_untied(Working& working, const NameChanges& changes) {
  for (const auto& [alias, name] : working.aliases()) {
    if (!changes.contains(alias) && !changes.contains(name)) continue;
    fail(Errc::unsupported, "'{}' and '{}' are one tensor (tied weights)", alias, name);
  }
}

void follow_names(Working& working, const NameChanges& changes) {
  if (!working.documents_follow || changes.empty()) return;
  const std::vector<StateKeys> optimizers = follow_numbers(working, changes);
  follow_model(working, changes);
  follow_optimizer(working, changes);
  follow_tree(working, changes, optimizers);
}

}  // namespace cairn::detail::migrations
