#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipeline/value.hpp"

namespace cairn::detail::legacy {

/// A dotted path, and the one around it.
std::string parent_of(std::string_view path);

/// What takes the place of ${path}, whatever way it was written; nothing: it stays.
using Replacement = std::function<std::optional<std::string>(const std::string& path)>;

/// Called for every reference that is replaced, with its text before and after.
using Replaced = std::function<void(const std::string& from, const std::string& to)>;

/// `text` with its references replaced. `holder` is the path of the mapping that holds the text:
/// relative references begin there. What only resolvers know (${oc.env:X}) stays text. Local.
std::string replace_references(std::string_view text, const std::string& holder,
                               const Replacement& replacement, const Replaced& replaced = {});

/// `text` with what the document itself says filled in, as far as it does. Local.
std::string filled_in(const Value& document, std::string_view text, const std::string& holder);

/// Whether the text begins with something that only resolvers or other files know.
bool begins_unknown(std::string_view text);

}  // namespace cairn::detail::legacy
