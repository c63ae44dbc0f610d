#include "formats/torch/leaves.hpp"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <utility>

namespace cairn::detail::torch {

using Json = nlohmann::ordered_json;

namespace {

constexpr std::int64_t kExact = std::int64_t{1} << 53;

}  // namespace

Json number_json(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

Json integer_json(std::int64_t value) {
  return value < kExact && value > -kExact ? Json(value) : Json(std::to_string(value));
}

Json integer_json(std::uint64_t value) {
  return value < std::uint64_t{kExact} ? Json(value) : Json(std::to_string(value));
}

Json float_leaf(std::string type, double value) {
  return {{"type", std::move(type)},
          {"value", number_json(value)},
          {"bits", fmt::format("{:016x}", std::bit_cast<std::uint64_t>(value))}};
}

}  // namespace cairn::detail::torch
