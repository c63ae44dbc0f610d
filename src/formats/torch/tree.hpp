#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "cairn/manifest.hpp"

namespace cairn::detail::torch {

/// The object that a file of PyTorch's is to hold, put together path by path. All members are
/// Local.
class Tree {
 public:
  using Node = std::uint32_t;
  static constexpr Node kRoot = 0;

  enum class Kind : std::uint8_t {
    branch,  ///< a list where its keys are 0, 1, 2, ..., else a dict
    dict,
    tuple,
    tensor,
    array,  ///< a tensor whose bytes are in the pickle's company rather than in the source
    leaf,   ///< a value as the document `objects` has it: {type, value, bits}
    value,  ///< any JSON value
  };
  struct Entry {
    Kind kind = Kind::branch;
    PathKey key;
    std::vector<Node> children;  ///< in the order in which they were added
    std::size_t number = 0;      ///< of a tensor or array: what the caller calls it
    nlohmann::ordered_json value;
  };

  Tree();
  /// Put something at a path, whose branches come by themselves. Errors: mismatch (something else
  /// is there); unsafe (deeper than 1000).
  void add_tensor(std::span<const PathKey> path, std::size_t number);
  void add_array(std::span<const PathKey> path, std::size_t number);
  void add_value(std::span<const PathKey> path, nlohmann::ordered_json value);
  /// False where a pickle that `weights_only` reads can't hold such a value.
  bool add_leaf(std::span<const PathKey> path, const nlohmann::ordered_json& leaf);
  /// Says what the branch at a path is, where there is one.
  void set_kind(std::span<const PathKey> path, Kind kind);

  const Entry& at(Node node) const { return entries_[node]; }
  /// Whether anything is below a path.
  bool contains(std::span<const PathKey> path) const { return find(path) != kNone; }

 private:
  static constexpr Node kNone = ~Node{0};
  Node find(std::span<const PathKey> path) const;
  Node child(Node parent, const PathKey& key) const;
  Entry& add(std::span<const PathKey> path, Kind kind);

  std::vector<Entry> entries_;
  std::unordered_map<std::string, Node> known_;  // by parent and key
};

/// The keys of a path in a document: texts and integers. Errors: corrupt.
std::vector<PathKey> path_of(const nlohmann::ordered_json& json);
/// The path whose keys name_of() joined; numbers come back as texts.
std::vector<PathKey> path_of_name(std::string_view name);

}  // namespace cairn::detail::torch
