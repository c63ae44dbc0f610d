#pragma once

#include <span>
#include <string>
#include <string_view>

#include "pipeline/value.hpp"

namespace cairn::detail::legacy {

/// What a key is about; the new keys of one group are never mixed with its old ones.
enum class Group { load, freeze, save, averaging };

enum class Era { e0, e1, e2, e3, es };

struct LegacyKey {
  std::string_view path;  ///< dotted
  Group group;
  Era first = Era::e0;  ///< the eras that have it
  Era last = Era::e3;
  /// Says something as soon as it has a value; the others when they are true or name something.
  bool stated = false;
};

/// Every key that moves into cairn's blocks.
std::span<const LegacyKey> legacy_keys();

/// The value at a dotted path; null where there is none.
const Value* find_path(const Value& document, std::string_view path);

/// Whether the value says anything: no null, no empty text or list, no false where that is the
/// default.
bool says_something(const LegacyKey& key, const Value* value);

/// true and false in YAML's spellings and as numbers: the legacy system took what Python takes.
bool parse_legacy_flag(std::string_view text, bool& flag);

/// The first key of the legacy configuration in `document` that says something; null: none.
const LegacyKey* first_legacy_key(const Value& document);

/// What Config refuses: a configuration that would be half obeyed. Errors: usage.
void refuse_legacy_keys(const Value& document, const Place& place);

}  // namespace cairn::detail::legacy
