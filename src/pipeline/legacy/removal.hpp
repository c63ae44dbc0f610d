#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "pipeline/legacy/plan.hpp"

namespace cairn::detail::legacy {

/// Calls `visit(path, value)` for every entry and item below `value`, outermost first.
using Visit = std::function<void(const std::string& path, const Value& value)>;
void visit_all(const Value& value, const std::string& path, const Visit& visit);

/// A reference in an entry that stays, to one that goes.
struct Rewrite {
  std::size_t key_at = 0;  ///< of the entry whose value holds it
  bool in_flow = false;
  std::string from;
  std::string to;
};

/// What goes out of a document. Entries are known by the offset of their key: an anchored mapping
/// stands in the tree as often as it is used, and in the text once.
struct Removal {
  std::map<std::size_t, std::string> keys;  ///< and their paths
  std::vector<Rewrite> rewrites;

  bool holds(const Value& entry) const { return keys.count(entry.key_at) != 0; }
};

/// Decides what goes, mappings that become empty included. Keys that say nothing stay where
/// something needs them. Reports what stands in the way.
Removal decide_removal(Reader& reader, Plan& plan);

/// The document as it must be afterwards, without the new blocks.
Value without(const Value& document, const Removal& removal);

}  // namespace cairn::detail::legacy
