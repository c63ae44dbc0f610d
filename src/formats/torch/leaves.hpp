#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace cairn::detail::torch {

// How the values of leaves are written as JSON. All Local.

/// A number; "nan", "inf" or "-inf".
nlohmann::ordered_json number_json(double value);
/// A number where every program reads it exactly (below 2^53), else a text of its digits.
nlohmann::ordered_json integer_json(std::int64_t value);
nlohmann::ordered_json integer_json(std::uint64_t value);
/// {type, value, bits}.
nlohmann::ordered_json float_leaf(std::string type, double value);

}  // namespace cairn::detail::torch
