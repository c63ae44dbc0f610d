#include "base/json_numbers.hpp"

#include <cmath>
#include <limits>
#include <string_view>

namespace cairn::detail {
namespace {

constexpr std::string_view kNan = "NaN";
constexpr std::string_view kInfinity = "Infinity";
constexpr std::string_view kMinusInfinity = "-Infinity";

}  // namespace

nlohmann::json number_to_json(double value) {
  if (std::isnan(value)) return kNan;
  if (std::isinf(value)) return value > 0 ? kInfinity : kMinusInfinity;
  return value;
}

double number_from_json(const nlohmann::json& value) {
  if (value == kNan) return std::numeric_limits<double>::quiet_NaN();
  if (value == kInfinity) return std::numeric_limits<double>::infinity();
  if (value == kMinusInfinity) return -std::numeric_limits<double>::infinity();
  return value.get<double>();
}

}  // namespace cairn::detail
