#include "formats/torch/numpy_time.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <string>

#include "formats/torch/leaves.hpp"

namespace cairn::detail::torch {

using Json = nlohmann::ordered_json;

namespace {

constexpr std::int64_t kNoTime = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kSecondsOfDay = 86400;

struct Unit {
  std::string_view name;
  std::string_view plural;
  std::int64_t seconds;    // in one, or
  std::int64_t of_second;  // in a second
};

// Those that Python's datetime.timedelta can tell.
constexpr std::array kUnits{
    Unit{"W", "weeks", 7 * kSecondsOfDay, 1},
    Unit{"D", "days", kSecondsOfDay, 1},
    Unit{"h", "hours", 3600, 1},
    Unit{"m", "minutes", 60, 1},
    Unit{"s", "seconds", 1, 1},
    Unit{"ms", "milliseconds", 1, 1000},
    Unit{"us", "microseconds", 1, 1'000'000},
};

const Unit* find(std::string_view name) {
  for (const Unit& unit : kUnits) {
    if (unit.name == name) return &unit;
  }
  return nullptr;
}

std::int64_t floor_div(std::int64_t a, std::int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }

bool is_year(std::int64_t year) { return year >= 1 && year <= 9999; }

/// The time of the day, as exactly as the unit is.
std::string clock_text(std::string_view unit, std::int64_t seconds, std::int64_t fraction) {
  std::string text = fmt::format("T{:02}", seconds / 3600);
  if (unit == "h") return text;
  text += fmt::format(":{:02}", seconds / 60 % 60);
  if (unit == "m") return text;
  text += fmt::format(":{:02}", seconds % 60);
  if (unit == "ms") text += fmt::format(".{:03}", fraction);
  if (unit == "us") text += fmt::format(".{:06}", fraction);
  return text;
}

}  // namespace

Json datetime_json(std::int64_t count, std::int64_t step, std::string_view unit) {
  if (count == kNoTime) return "NaT";
  std::int64_t value = 0;
  if (__builtin_mul_overflow(count, step, &value)) return integer_json(count);
  if (unit == "Y" || unit == "M") {
    const std::int64_t months = unit == "M" ? 12 : 1;
    const std::int64_t years = floor_div(value, months);
    if (!is_year(1970 + std::clamp<std::int64_t>(years, -10'000, 10'000))) {
      return integer_json(count);
    }
    const std::int64_t year = 1970 + years;
    if (unit == "Y") return fmt::format("{:04}", year);
    return fmt::format("{:04}-{:02}", year, value - years * months + 1);
  }
  const Unit* known = find(unit);
  std::int64_t seconds = 0;
  if (known == nullptr ||
      __builtin_mul_overflow(floor_div(value, known->of_second), known->seconds, &seconds)) {
    return integer_json(count);
  }
  constexpr std::int64_t kMostDays = 4'000'000;  // beyond the year 9999
  const std::int64_t days = floor_div(seconds, kSecondsOfDay);
  if (days < -kMostDays || days > kMostDays) return integer_json(count);
  const std::chrono::year_month_day date{std::chrono::sys_days(std::chrono::days(days))};
  if (!is_year(static_cast<int>(date.year()))) return integer_json(count);
  std::string text =
      fmt::format("{:04}-{:02}-{:02}", static_cast<int>(date.year()),
                  static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()));
  if (unit != "W" && unit != "D") {
    text += clock_text(unit, seconds - days * kSecondsOfDay,
                       value - floor_div(value, known->of_second) * known->of_second);
  }
  return text;
}

Json timedelta_json(std::int64_t count, std::int64_t step, std::string_view unit) {
  if (count == kNoTime) return "NaT";
  const Unit* known = find(unit);
  std::int64_t value = 0;
  std::int64_t seconds = 0;
  constexpr std::int64_t kMostSeconds = 1'000'000'000 * kSecondsOfDay;
  const bool told =
      known != nullptr && !__builtin_mul_overflow(count, step, &value) &&
      !__builtin_mul_overflow(floor_div(value, known->of_second), known->seconds, &seconds) &&
      seconds < kMostSeconds && seconds > -kMostSeconds;
  if (!told) return integer_json(count);
  return fmt::format("{} {}", value, known->plural);
}

}  // namespace cairn::detail::torch
