#pragma once

#include <nlohmann/json.hpp>

#include "cairn/export.hpp"

namespace cairn::detail {

/// JSON has no NaN and no infinities: those become the strings "NaN", "Infinity" and "-Infinity".
CAIRN_EXPORT nlohmann::json number_to_json(double value);
/// Inverse of number_to_json. Throws json::exception.
CAIRN_EXPORT double number_from_json(const nlohmann::json& value);

}  // namespace cairn::detail
