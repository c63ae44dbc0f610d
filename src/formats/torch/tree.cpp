#include "formats/torch/tree.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "base/throw.hpp"
#include "formats/torch/values.hpp"
#include "manifest/path_json.hpp"

namespace cairn::detail::torch {
namespace {

constexpr std::size_t kMostDepth = 1000;

std::string known_as(std::uint32_t parent, const PathKey& key) {
  std::string name = std::to_string(parent);
  if (const auto* text = std::get_if<std::string>(&key)) return name + "s" + *text;
  return name + "i" + std::to_string(std::get<std::int64_t>(key));
}

bool can_hold(const Json& leaf) {
  constexpr std::array<std::string_view, 12> kTypes{
      "none", "bool", "int",       "float",       "str",        "list",
      "dict", "path", "frozenset", "torch.dtype", "torch.Size", "torch.device"};
  const std::string type = leaf.value("type", "");
  for (const Json& part : leaf.value("parts", Json::array())) {
    if (!can_hold(part.at(1))) return false;
  }
  if (type == "tuple" || type == "set") return true;
  if (!type.starts_with("numpy.")) {
    return std::find(kTypes.begin(), kTypes.end(), type) != kTypes.end();
  }
  // Others are bytes, times and complex numbers.
  return leaf.contains("bits") || type == "numpy.bool" || type.starts_with("numpy.str") ||
         type.find("int") != std::string::npos;
}

}  // namespace

Tree::Tree() : entries_(1) {}

Tree::Node Tree::child(Node parent, const PathKey& key) const {
  const auto found = known_.find(known_as(parent, key));
  return found == known_.end() ? kNone : found->second;
}

Tree::Node Tree::find(std::span<const PathKey> path) const {
  Node node = kRoot;
  for (const PathKey& key : path) {
    node = child(node, key);
    if (node == kNone) return kNone;
  }
  return node;
}

Tree::Entry& Tree::add(std::span<const PathKey> path, Kind kind) {
  if (path.size() > kMostDepth) {
    fail(Errc::unsafe, "its values are nested deeper than {}", kMostDepth);
  }
  Node node = kRoot;
  bool is_new = path.empty() && entries_.size() == 1;
  for (const PathKey& key : path) {
    const Kind above = entries_[node].kind;
    if (above != Kind::branch && above != Kind::dict && above != Kind::tuple) break;
    Node next = child(node, key);
    is_new = next == kNone;
    if (is_new) {
      next = static_cast<Node>(entries_.size());
      entries_[node].children.push_back(next);
      known_.emplace(known_as(node, key), next);
      entries_.emplace_back().key = key;
    }
    node = next;
  }
  if (!is_new) fail(Errc::mismatch, "two values would be at '{}'", name_of(path));
  entries_[node].kind = kind;
  return entries_[node];
}

void Tree::add_tensor(std::span<const PathKey> path, std::size_t number) {
  add(path, Kind::tensor).number = number;
}

void Tree::add_array(std::span<const PathKey> path, std::size_t number) {
  add(path, Kind::array).number = number;
}

void Tree::add_value(std::span<const PathKey> path, Json value) {
  add(path, Kind::value).value = std::move(value);
}

bool Tree::add_leaf(std::span<const PathKey> path, const Json& leaf) {
  if (!can_hold(leaf)) return false;
  add(path, Kind::leaf).value = leaf;
  return true;
}

void Tree::set_kind(std::span<const PathKey> path, Kind kind) {
  const Node node = find(path);
  if (node != kNone && entries_[node].kind == Kind::branch) entries_[node].kind = kind;
}

std::vector<PathKey> path_of(const Json& json) {
  auto path = path_from(json);
  if (!path) fail(Errc::corrupt, "a path in a document is broken");
  return std::move(*path);
}

std::vector<PathKey> path_of_name(std::string_view name) {
  std::vector<PathKey> path;
  std::string key;
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '/') {
      path.emplace_back(std::exchange(key, {}));
      continue;
    }
    if (name[i] == '\\' && i + 1 < name.size()) ++i;
    key += name[i];
  }
  path.emplace_back(std::move(key));
  return path;
}

}  // namespace cairn::detail::torch
