#include "formats/deepspeed/optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <variant>

#include "os/file.hpp"

namespace cairn::detail::deepspeed {
namespace {

using torch::Json;

constexpr std::uint64_t kOfName = 256;  // as JSON, and as text where that is written

/// A number that lies in a file; null where it is none.
Json number_at(const Run& run, const File& file) {
  const auto as = [&](auto value) -> Json {
    file.read_at(run.offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  };
  switch (run.dtype) {
    case DType::f32:
      return as(0.0F);
    case DType::f64:
      return as(0.0);
    case DType::i64:
      return as(std::int64_t{0});
    case DType::i32:
      return as(std::int32_t{0});
    default:
      return nullptr;
  }
}

/// A count that may be written as a float; nothing where it is none.
std::optional<std::uint64_t> count_of(const Json& json) {
  if (json.is_number_unsigned()) return json.get<std::uint64_t>();
  if (!json.is_number()) return std::nullopt;
  constexpr double kMost = 9e15;
  const double number = json.get<double>();
  if (!(number >= 0 && number < kMost) || std::trunc(number) != number) return std::nullopt;
  return static_cast<std::uint64_t>(number);
}

/// Which runs each group has, if that can be told.
std::optional<std::vector<std::vector<std::size_t>>> runs_of(const Json& param_groups,
                                                             std::size_t count) {
  std::vector<std::vector<std::size_t>> runs;
  std::vector<std::size_t> all;
  for (const Json& group : param_groups) {
    const auto params = group.is_object() ? group.find("params") : group.end();
    if (!group.is_object() || params == group.end() || !params->is_array()) return std::nullopt;
    for (const Json& number : *params) {
      if (!number.is_number_integer()) return std::nullopt;
      all.push_back(number.get<std::size_t>());
    }
    runs.emplace_back(all.end() - static_cast<std::ptrdiff_t>(params->size()), all.end());
  }
  std::sort(all.begin(), all.end());
  std::vector<std::size_t> wanted(count);
  for (std::size_t i = 0; i < count; ++i) wanted[i] = i;
  if (all == wanted) return runs;
  if (runs.size() != 1) return std::nullopt;
  runs[0] = std::move(wanted);
  return runs;
}

/// The step of all of some runs.
std::optional<std::uint64_t> step_of(const std::vector<std::size_t>& runs,
                                     const std::vector<Json>& steps) {
  std::optional<std::uint64_t> common;
  for (const std::size_t run : runs) {
    const auto step = run < steps.size() ? count_of(steps[run]) : std::nullopt;
    if (!step || (common && *common != *step)) return std::nullopt;
    common = step;
  }
  return common;
}

}  // namespace

std::map<std::string, std::vector<Json>> tell_optimizer(const Partition& partition,
                                                        const Manifest& manifest, Json& told) {
  std::map<std::string, std::vector<Json>> by_run;
  std::optional<File> file;  // a rank has one
  const auto number = [&](const Run& run) {
    if (!file) file = File::open_read(manifest.files.at(run.file).path);
    return number_at(run, *file);
  };
  Json values = Json::object();
  for (const auto& [slot, runs] : partition.once) {
    std::vector<Json>& found = by_run[slot];
    for (const Once& once : runs) {
      const auto* text = std::get_if<std::string>(&once);
      const auto* run = std::get_if<Run>(&once);
      found.push_back(text != nullptr  ? Json::parse(*text)
                      : run != nullptr ? number(*run)
                                       : Json());
    }
    const bool same = std::all_of(found.begin(), found.end(),
                                  [&](const Json& value) { return value == found[0]; });
    values[slot] = same ? found[0] : Json(found);
  }
  if (!values.empty()) told["optimizer"] = std::move(values);
  if (!partition.param_groups.empty()) told["param_groups"] = Json::parse(partition.param_groups);
  return by_run;
}

void add_optimizer_document(const Json& param_groups,
                            const std::vector<std::vector<Parameter>>& groups,
                            const std::vector<Json>& steps, Manifest& manifest,
                            TableBytes& table_bytes) {
  if (!param_groups.is_array() || param_groups.empty()) return;
  const auto runs = runs_of(param_groups, groups.size());
  if (!runs) return;
  Json named = param_groups;
  for (std::size_t g = 0; g < named.size(); ++g) {
    Json names = Json::array();
    for (const std::size_t run : (*runs)[g]) {
      for (const Parameter& parameter : groups[run]) {
        table_bytes.add_bytes(kOfName + 3 * parameter.name.size());
        names.push_back(parameter.name);
      }
    }
    named[g]["params"] = std::move(names);
    if (const auto step = step_of((*runs)[g], steps)) named[g]["step"] = *step;
  }
  manifest.documents["optimizer"] =
      Json{{"type", nullptr}, {"param_groups", std::move(named)}}.dump(
          -1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace cairn::detail::deepspeed
