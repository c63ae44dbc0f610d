#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace cairn::detail {

/// As it is written into checkpoints. What in it is no UTF-8 becomes U+FFFD. Local.
inline std::string to_text(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace cairn::detail
