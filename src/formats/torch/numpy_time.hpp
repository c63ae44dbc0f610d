#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

namespace cairn::detail::torch {

// What NumPy prints of a datetime64 or timedelta64 of `count` times `step` units ("D", "ms"; ""
// where there is none): a text, or the count where Python's datetime has nothing like it. All
// Local.

nlohmann::ordered_json datetime_json(std::int64_t count, std::int64_t step, std::string_view unit);
nlohmann::ordered_json timedelta_json(std::int64_t count, std::int64_t step, std::string_view unit);

}  // namespace cairn::detail::torch
