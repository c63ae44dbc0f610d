#include "pipeline/migrations/numbers.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "base/throw.hpp"

namespace cairn::detail::migrations {
namespace {

bool has_numbers(Working& working) {
  return working.document("tree").is_array() && working.document("optimizers").is_array();
}

bool is_below(const Json& path, const Json& optimizer, std::string_view key) {
  return path.is_array() && path.size() > optimizer.size() &&
         std::equal(optimizer.begin(), optimizer.end(), path.begin()) &&
         path[optimizer.size()] == key;
}

/// The names of the parameters themselves, and those that stand for them.
std::unordered_set<std::string> names_of_model(Working& working) {
  std::unordered_set<std::string> names;
  for (const Item& item : working.items) {
    const auto role = role_of(item.entry.name);
    if (role && !role->is_slot()) names.insert(role->parameter);
  }
  for (const auto& [alias, name] : working.aliases()) names.insert(alias);
  return names;
}

[[noreturn]] void refuse(const Json& optimizer, const std::string& parameter) {
  fail(Errc::unsupported,
       "the state that the optimizer at {} has of '{}' would stay as it is: PyTorch numbers "
       "parameters, and which of the model's tensors these are can't be told for certain; 'cairn "
       "convert --weights-only' the file first, and begin with a new optimizer",
       optimizer.at("path").dump(), parameter);
}

/// A list of the document's, or an empty one.
const Json& list_in(const Json& object, const char* key) {
  static const Json kEmpty = Json::array();
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() && found->is_array() ? *found : kEmpty;
}

/// The keys of the optimizer's parameters, in the order of its groups.
std::vector<Json> keys_of(const Json& optimizer) {
  std::vector<Json> keys;
  for (const Json& group : list_in(optimizer, "param_groups")) {
    const Json& params = list_in(group, "params");
    keys.insert(keys.end(), params.begin(), params.end());
  }
  return keys;
}

/// The names of the parameters with these keys; none where they are not known.
std::vector<std::string> names_of(const Json& optimizer, const std::vector<Json>& keys) {
  std::vector<std::string> names;
  const Json& parameters = optimizer.at("parameters");
  const bool by_name =
      std::all_of(keys.begin(), keys.end(), [](const Json& key) { return key.is_string(); });
  if (parameters.is_array() && parameters.size() == keys.size()) {
    names = parameters.get<std::vector<std::string>>();
  } else if (parameters.is_null() && by_name) {
    for (const Json& key : keys) names.push_back(key.get<std::string>());
  }
  return names;
}

/// What the optimizer's keys become; nothing where none of its parameters has another name, or
/// they are not known.
std::optional<StateKeys> keys_now(const Json& optimizer, const NameChanges& changes) {
  const std::vector<Json> keys = keys_of(optimizer);
  const std::vector<std::string> names = names_of(optimizer, keys);
  const auto changed = [&](const std::string& name) { return changes.contains(name); };
  if (std::none_of(names.begin(), names.end(), changed)) return std::nullopt;
  StateKeys result;
  result.path = optimizer.at("path");
  std::set<std::string> seen;
  std::size_t next = 0;
  for (const Json& group : list_in(optimizer, "param_groups")) {
    Json before = Json::array();
    for (std::size_t i = list_in(group, "params").size(); i > 0; --i) {
      before.push_back(names[next++]);
    }
    result.names.push_back(followed(before, changes, seen));
  }
  const bool renames = seen.size() == keys.size() &&
                       std::all_of(names.begin(), names.end(), [&](const std::string& name) {
                         return names_now(changes, name).size() == 1;
                       });
  const bool by_name = keys.front().is_string();
  std::unordered_map<std::string, Json> made;  // by the new names
  next = 0;
  for (const Json& group : result.names) {
    Json& params = result.params.emplace_back(Json::array());
    for (const Json& name : group) {
      params.push_back(by_name ? name : renames ? keys[next] : Json(next));
      made.emplace(name.get<std::string>(), params.back());
      ++next;
    }
  }
  for (std::size_t i = 0; i < keys.size(); ++i) {
    std::vector<Json>& now = result.now[keys[i].dump()];
    for (const std::string& name : names_now(changes, names[i])) {
      now.push_back(made.at(name));
      ++result.wholes[now.back().dump()];
    }
  }
  return result;
}

/// The optimizer's own entry.
void set_keys(Json& optimizer, const StateKeys& keys) {
  Json parameters = Json::array();
  for (const Json& names : keys.names) {
    parameters.insert(parameters.end(), names.begin(), names.end());
  }
  if (optimizer["parameters"].is_array()) optimizer["parameters"] = std::move(parameters);
  for (std::size_t g = 0; g < keys.params.size(); ++g) {
    Json& group = optimizer["param_groups"][g];
    if (group.contains("params")) group["params"] = keys.params[g];
    if (group.contains("param_names")) group["param_names"] = keys.names[g];
  }
}

/// What a document tells by paths of optimizers' groups, and of state beside tensors, on its way to
/// what the parameters became.
class StateValues {
 public:
  /// `tells_groups`: the list has the groups' keys and names.
  StateValues(const std::vector<StateKeys>& optimizers, bool tells_groups)
      : optimizers_(optimizers), tells_groups_(tells_groups) {}

  Json moved(Json& list) {
    for (Json& item : list) add(item);
    for (const auto& [path, whole] : wholes_) {
      if (whole.found == whole.parts) continue;
      fail(Errc::mismatch, "not every part of what is to be at {} is there", path);
    }
    return std::move(kept_);
  }

 private:
  struct Whole {
    std::size_t parts = 0;
    std::size_t found = 0;
    std::size_t position = 0;  ///< in `kept_`
  };

  void add(Json& item) {
    const Json& path = list_in(item, "path");
    for (const StateKeys& keys : optimizers_) {
      if (is_below(path, keys.path, "param_groups") && tells_groups_ && add_group(item, keys))
        return;
      const std::size_t at = keys.path.size() + 1;
      if (!is_below(path, keys.path, "state") || path.size() == at) continue;
      const auto now = keys.now.find(path[at].dump());
      if (now == keys.now.end()) break;
      for (const Json& key : now->second) {
        Json copy = item;
        copy["path"][at] = key;
        put(std::move(copy), keys.wholes.at(key.dump()));
      }
      return;
    }
    kept_.push_back(std::move(item));
  }

  /// The keys, or the names, of a group, which are told in one value or, where they are few, one by
  /// one. False for anything else.
  bool add_group(const Json& item, const StateKeys& keys) {
    const Json& path = item["path"];
    const std::size_t at = keys.path.size() + 1;
    if (path.size() < at + 2 || !path[at].is_number_unsigned()) return false;
    const auto group = path[at].get<std::size_t>();
    const bool names = path[at + 1] == "param_names";
    if (group >= keys.params.size() || (!names && path[at + 1] != "params")) return false;
    Json whole = Json::array();
    whole.insert(whole.end(), path.begin(), path.begin() + static_cast<std::ptrdiff_t>(at + 2));
    if (!groups_.insert(whole.dump()).second) return true;
    Json& added = kept_.emplace_back(Json::object());
    added["path"] = std::move(whole);
    added["type"] = path.size() == at + 2 ? item.value("type", "list") : "list";
    added["value"] = names ? keys.names[group] : keys.params[group];
    return true;
  }

  void put(Json item, std::size_t parts) {
    if (parts == 1) {
      kept_.push_back(std::move(item));
      return;
    }
    const std::string path = item["path"].dump();
    const auto [whole, is_new] = wholes_.try_emplace(path, Whole{parts, 1, kept_.size()});
    if (is_new) {
      kept_.push_back(std::move(item));
    } else if (kept_[whole->second.position] == item) {
      ++whole->second.found;
    } else {
      fail(Errc::mismatch, "the parts of what is to be at {} differ, and only one can stay: {}, {}",
           path, kept_[whole->second.position].value("value", Json()).dump(),
           item.value("value", Json()).dump());
    }
  }

  const std::vector<StateKeys>& optimizers_;
  const bool tells_groups_;
  std::set<std::string> groups_;  ///< paths of what is told
  Json kept_ = Json::array();
  std::map<std::string, Whole> wholes_;  ///< what several become, by its path
};

}  // namespace

void require_state_follows(Working& working, const NameChanges& changes) {
  if (changes.empty() || !has_numbers(working)) return;
  const std::string& first = changes.begin()->first;
  const std::unordered_set<std::string> model = names_of_model(working);
  for (const Json& optimizer : working.document("optimizers")) {
    const std::vector<Json> keys = keys_of(optimizer);
    const std::vector<std::string> names = names_of(optimizer, keys);
    if (names.size() != keys.size() || names.empty()) refuse(optimizer, first);
    for (const Json& item : working.document("tree")) {
      if (!is_below(item.at(1), optimizer.at("path"), "state")) continue;
      const auto role = role_of(item.at(0).get_ref<const std::string&>());
      if (!role || !role->is_slot()) refuse(optimizer, first);
    }
    // Names that the model has not: a wrapper's, maybe. On the way back the documents have other
    // names than the tensors, until all is undone.
    const std::set<std::string> known(names.begin(), names.end());
    const bool others = std::any_of(names.begin(), names.end(),
                                    [&](const std::string& name) { return !model.contains(name); });
    if (!others || !working.documents_follow) continue;
    for (const auto& [name, now] : changes) {
      if (!known.contains(name)) refuse(optimizer, name);
    }
  }
}

std::vector<StateKeys> follow_numbers(Working& working, const NameChanges& changes) {
  std::vector<StateKeys> optimizers;
  if (!has_numbers(working)) return optimizers;
  for (Json& optimizer : working.change("optimizers")) {
    auto keys = keys_now(optimizer, changes);
    if (!keys) continue;
    set_keys(optimizer, *keys);
    optimizers.push_back(std::move(*keys));
  }
  if (optimizers.empty()) return optimizers;
  for (const std::string name : {"objects", "opaque", "arrays", "containers"}) {
    if (!working.document(name).is_array()) continue;
    Json& list = working.change(name);
    list = StateValues(optimizers, name == "objects").moved(list);
  }
  return optimizers;
}

std::optional<Json> path_now(const std::vector<StateKeys>& optimizers, const Json& path,
                             std::size_t part) {
  for (const StateKeys& keys : optimizers) {
    const std::size_t at = keys.path.size() + 1;
    if (!is_below(path, keys.path, "state") || path.size() == at) continue;
    const auto now = keys.now.find(path[at].dump());
    if (now == keys.now.end() || part >= now->second.size()) return std::nullopt;
    Json result = path;
    result[at] = now->second[part];
    return result;
  }
  return std::nullopt;
}

}  // namespace cairn::detail::migrations
