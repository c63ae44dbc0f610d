#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace cairn::detail {

/// How deep a JSON document may be nested. Who copies or prints one recurses.
inline constexpr std::size_t kMostJsonDepth = 1000;

/// Whether more than `most` lists and objects lie within each other; any text will do. Local.
bool is_deeper(std::string_view text, std::size_t most = kMostJsonDepth);

/// Parses a document with its keys in their order; of a key that is there twice the last value
/// counts. Takes time in proportion to the text, where ordered_json::parse takes the square of an
/// object's keys. Discarded where the text is no JSON. Local.
nlohmann::ordered_json parse_ordered(std::string_view text);

/// Puts a member behind the others of an object, which must not have its key yet: without the look
/// at all of them that operator[] takes. Local.
void append_member(nlohmann::ordered_json& object, std::string key, nlohmann::ordered_json value);

}  // namespace cairn::detail
