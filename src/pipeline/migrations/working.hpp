#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/manifest.hpp"
#include "pipeline/migrations/place.hpp"

namespace cairn::detail::migrations {

/// What a tensor is to a parameter: itself ("model/", "ema/", "module/"), or a slot of the
/// optimizer's ("optimizer/<parameter>/<slot>").
struct Role {
  std::string before;     ///< "model/"
  std::string parameter;  ///< dotted
  std::string slot;       ///< empty, or "/exp_avg"

  bool is_slot() const { return !slot.empty(); }
  std::string name_for(const std::string& other_parameter) const;
};
/// Nothing for what belongs to no parameter. Local.
std::optional<Role> role_of(std::string_view name);

/// The few bytes that some steps must see. Both are Local. Errors: those of reading.
struct Bytes {
  std::function<bool(const TensorEntry& a, const TensorEntry& b)> same;
  std::function<std::vector<std::int64_t>(const TensorEntry& tensor)> integers;
};

/// A tensor on its way through the steps.
struct Item {
  TensorEntry entry;
  std::size_t origin = 0;     ///< its position in the checkpoint
  std::optional<DType> cast;  ///< what its values are to become
};

/// A checkpoint, with a container's names, on its way through the steps. All members are Local.
class Working {
 public:
  Working(const Manifest& manifest, Bytes bytes);

  std::vector<Item> items;
  Bytes bytes;
  /// Off: only tensors change. The way back restores documents as a whole.
  bool documents_follow = true;
  /// Tensors of the checkpoint, by position, whose digests say nothing about what became of them.
  std::set<std::size_t> lost_digests;

  bool has_document(const std::string& name) const { return texts_.contains(name); }
  /// Null where there is none. Errors: corrupt, where it is no JSON.
  const Json& document(const std::string& name);
  /// The same, to be changed; null makes a new one, and is no document at the end.
  Json& change(const std::string& name);
  /// Makes a document this text; without one there is none.
  void restore(const std::string& name, const std::optional<std::string>& text);
  /// All documents as they are now.
  std::map<std::string, std::string> texts() const;

  /// Names that stand for others (tied weights), dotted.
  std::map<std::string, std::string> aliases();
  /// All dotted names: of tensors, in their order, and of aliases.
  std::vector<std::string> parameters();

 private:
  struct Parsed {
    Json json;
    bool changed = false;
  };
  Parsed& parse(const std::string& name);
  std::map<std::string, std::string> texts_;
  std::map<std::string, Parsed> parsed_;
};

}  // namespace cairn::detail::migrations
