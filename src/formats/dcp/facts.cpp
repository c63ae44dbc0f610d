#include "formats/dcp/facts.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/json_text.hpp"
#include "formats/torch/facts.hpp"
#include "formats/torch/values.hpp"

namespace cairn::detail::dcp {
namespace {

using torch::Json;
using torch::Tree;
using Node = Tree::Node;
using Path = std::vector<PathKey>;

constexpr std::string_view kGroups = "param_groups";

std::string text_of(const PathKey& key) {
  if (const auto* text = std::get_if<std::string>(&key)) return *text;
  return std::to_string(std::get<std::int64_t>(key));
}

bool is_one_of(std::span<const std::string_view> names, const PathKey& key) {
  const auto* text = std::get_if<std::string>(&key);
  return text != nullptr && std::find(names.begin(), names.end(), *text) != names.end();
}

/// Also Lightning's "optimizer_0".
bool is_optimizer_key(const PathKey& key) {
  constexpr std::string_view kNumbered = "optimizer_";
  if (is_one_of(torch::kOptimizerKeys, key)) return true;
  const auto* text = std::get_if<std::string>(&key);
  return text != nullptr && text->starts_with(kNumbered) && text->size() > kNumbered.size() &&
         text->find_first_not_of("0123456789", kNumbered.size()) == std::string::npos;
}

class Facts {
 public:
  Facts(const Tree& values, const TensorTable& tensors) : values_(values) {
    for (const TensorEntry& tensor : tensors) {
      const Path& path = tensor.path;
      if (path.size() > 1) note(path, 0);
      if (path.size() > 2) note(path, 1);
    }
    note_groups({}, Tree::kRoot);
    for (const Node node : values_.at(Tree::kRoot).children) {
      note_groups({values_.at(node).key}, node);
    }
  }

  std::map<std::string, std::string> find() const {
    std::map<std::string, std::string> documents;
    const auto model = model_path();
    const std::vector<Path> paths = optimizer_paths();
    if (model) {
      Json roles = {{"model", torch::json_of(*model)}};
      if (!paths.empty()) roles["optimizer"] = torch::json_of(paths.front());
      add(documents, "roles", roles);
    }
    std::set<Node> told;
    if (model) told.insert(node_at(*model));
    Json optimizers = Json::array();
    for (const Path& path : paths) {
      const Node node = node_at(path);
      told.insert(node);
      const Node groups = child(node, std::string(kGroups));
      if (groups != Tree::kRoot) optimizers.push_back(optimizer_of(path, groups));
    }
    if (!optimizers.empty()) add(documents, "optimizers", optimizers);
    told.erase(Tree::kRoot);  // of those without values
    Json values = json_of(Tree::kRoot, told);
    if (!values.is_object() || values.empty()) return documents;
    const bool lightning = values.contains("pytorch-lightning_version");
    Json training = {{"kind", lightning ? "lightning" : "pytorch"}};
    for (auto& [key, value] : values.items()) {
      if (key != "kind") append_member(training, key, std::move(value));
    }
    add(documents, "training", training);
    return documents;
  }

 private:
  /// Notes the key at a place in a tensor's path.
  void note(const Path& path, std::size_t at) {
    static const PathKey kState = std::string("state");
    const bool optimizer = is_optimizer_key(path[at]) && path[at + 1] == kState;
    if (!optimizer && !is_one_of(torch::kModelKeys, path[at])) return;
    Path above(path.begin(), path.begin() + static_cast<std::ptrdiff_t>(at));
    keys_[std::move(above)].insert(text_of(path[at]));
  }

  /// Notes the optimizers among the values at a path: those without state have no tensors.
  void note_groups(const Path& above, Node node) {
    for (const Node next : values_.at(node).children) {
      const PathKey& key = values_.at(next).key;
      if (is_optimizer_key(key) && child(next, std::string(kGroups)) != Tree::kRoot) {
        keys_[above].insert(text_of(key));
      }
    }
  }

  static void add(std::map<std::string, std::string>& documents, const char* name,
                  const Json& json) {
    documents[name] = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  }

  /// The child of a key, or the root where there is none.
  Node child(Node node, const PathKey& key) const {
    for (const Node next : values_.at(node).children) {
      if (values_.at(next).key == key) return next;
    }
    return Tree::kRoot;
  }
  Node node_at(const Path& path) const {
    Node node = Tree::kRoot;
    for (const PathKey& key : path) {
      node = child(node, key);
      if (node == Tree::kRoot) break;
    }
    return node;
  }

  /// The first of the keys that are called as a model's usually are.
  std::optional<Path> model_path() const {
    const auto above = place_of([](const PathKey& key) { return !is_optimizer_key(key); });
    if (!above) return std::nullopt;
    const auto& keys = keys_.at(*above);
    for (const std::string_view key : torch::kModelKeys) {
      if (keys.contains(std::string(key))) return below(*above, std::string(key));
    }
    return std::nullopt;
  }

  std::vector<Path> optimizer_paths() const {
    std::vector<Path> paths;
    const auto above = place_of(is_optimizer_key);
    if (!above) return paths;
    for (const std::string& key : keys_.at(*above)) {
      if (is_optimizer_key(key)) paths.push_back(below(*above, key));
    }
    return paths;
  }

  /// Where there are such keys: the root, or else the only key of the root below which they are.
  template <class F>
  std::optional<Path> place_of(F&& is_wanted) const {
    std::optional<Path> found;
    for (const auto& [above, keys] : keys_) {  // the root comes first
      if (std::none_of(keys.begin(), keys.end(), is_wanted)) continue;
      if (found) return std::nullopt;
      found = above;
      if (above.empty()) break;
    }
    return found;
  }

  static Path below(Path path, std::string key) {
    path.emplace_back(std::move(key));
    return path;
  }

  Json optimizer_of(const Path& path, Node param_groups) const {
    Json json = {{"path", torch::json_of(path)}, {"parameters", nullptr}, {"names_from", nullptr}};
    Json groups = json_of(param_groups, {});
    Json names = Json::array();
    bool known = groups.is_array();
    for (const Json& group : groups) {
      const auto params = group.is_object() ? group.find("params") : group.end();
      known = known && group.is_object() && params != group.end() && params->is_array();
      if (!known) break;
      for (const Json& name : *params) {
        known = known && name.is_string();
        names.push_back(name);
      }
    }
    if (known && !names.empty()) {
      json["parameters"] = std::move(names);
      json["names_from"] = "file";
    }
    json["param_groups"] = std::move(groups);
    return json;
  }

  /// The values at and below a node, without those below the nodes `but`.
  Json json_of(Node node, const std::set<Node>& but) const {
    const Tree::Entry& entry = values_.at(node);
    if (entry.kind == Tree::Kind::value) return entry.value;
    std::vector<Node> children;
    for (const Node next : entry.children) {
      if (!but.contains(next)) children.push_back(next);
    }
    if (is_list(children)) {
      std::sort(children.begin(), children.end(), [&](Node a, Node b) {
        return std::get<std::int64_t>(values_.at(a).key) <
               std::get<std::int64_t>(values_.at(b).key);
      });
      Json json = Json::array();
      for (const Node next : children) json.push_back(json_of(next, but));
      return json;
    }
    Json json = Json::object();
    for (const Node next : children) {
      Json value = json_of(next, but);
      const bool left_out =
          value.is_object() && value.empty() && !values_.at(next).children.empty();
      if (!left_out) append_member(json, text_of(values_.at(next).key), std::move(value));
    }
    return json;
  }

  /// Whether the keys are 0, 1, 2, ... in any order. No key is there twice.
  bool is_list(const std::vector<Node>& children) const {
    const auto count = static_cast<std::int64_t>(children.size());
    return count != 0 && std::all_of(children.begin(), children.end(), [&](Node node) {
             const auto* number = std::get_if<std::int64_t>(&values_.at(node).key);
             return number != nullptr && *number >= 0 && *number < count;
           });
  }

  const Tree& values_;
  /// Where tensors are below keys that are called as a model's or optimizer's usually are.
  std::map<Path, std::set<std::string>> keys_;
};

}  // namespace

std::map<std::string, std::string> facts_of(const Tree& values, const TensorTable& tensors) {
  return Facts(values, tensors).find();
}

}  // namespace cairn::detail::dcp
