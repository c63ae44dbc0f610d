#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cairn/manifest.hpp"

namespace cairn::detail {

/// The path of a tensor as documents list it, texts and numbers; nothing where that is no path.
/// `Json`: either of nlohmann's. Local.
template <class Json>
std::optional<std::vector<PathKey>> path_from(const Json& json) {
  if (!json.is_array()) return std::nullopt;
  std::vector<PathKey> path;
  for (const Json& key : json) {
    if (key.is_string()) {
      path.emplace_back(key.template get<std::string>());
    } else if (key.is_number_integer()) {
      path.emplace_back(key.template get<std::int64_t>());
    } else {
      return std::nullopt;
    }
  }
  return path;
}

}  // namespace cairn::detail
