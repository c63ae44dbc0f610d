#include "formats/deepspeed/optimizer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <unordered_map>
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

std::vector<std::size_t> first_numbers(std::size_t count) {
  std::vector<std::size_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), std::size_t{0});
  return numbers;
}

/// Which runs each group has; nothing where that can't be told.
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
  if (all != first_numbers(count)) return std::nullopt;
  return runs;
}

/// Sets how often the runs of a group were stepped. What the group says itself counts where no run
/// does: DeepSpeed's own Adam writes a 0 into it, and counts in the runs.
/// False where they differ.
bool set_step(const std::vector<std::size_t>& runs, const std::vector<Json>& steps, Json& group) {
  std::vector<Json> known;
  for (const std::size_t run : runs) known.push_back(run < steps.size() ? steps[run] : Json());
  const auto is_known = [](const Json& step) { return !step.is_null(); };
  if (std::none_of(known.begin(), known.end(), is_known)) return true;
  group.erase("step");
  const bool same =
      std::all_of(known.begin(), known.end(), [&](const Json& step) { return step == known[0]; });
  const auto step = same ? count_of(known[0]) : std::nullopt;
  if (step) group["step"] = *step;
  return same;
}

/// Leaves out what is no plain value, such as a tensor or an object. Returns the names.
std::string keep_plain(Json& group) {
  const auto is_plain = [](const Json& value) {
    return !value.is_object() &&
           (!value.is_array() || std::none_of(value.begin(), value.end(), [](const Json& part) {
             return part.is_structured();
           }));
  };
  std::string left_out;
  for (auto item = group.begin(); item != group.end();) {
    if (is_plain(item.value())) {
      ++item;
      continue;
    }
    left_out += fmt::format("{}'{}'", left_out.empty() ? "" : ", ", item.key());
    item = group.erase(item);
  }
  return left_out;
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

void undo_round_robin(const torch::StateFile& model, std::vector<std::vector<Parameter>>& groups,
                      Manifest& manifest) {
  const pickle::Ref zero = model.find(model.find(model.root(), "ds_config"), "zero_optimization");
  const pickle::Ref flag = model.find(zero, "round_robin_gradients");
  const bool reordered = flag != pickle::kNoRef &&
                         model.graph().kind(flag) == pickle::Kind::boolean &&
                         model.graph().boolean(flag);
  if (!reordered) return;
  std::unordered_map<std::string, std::size_t> places;
  model.for_each(model.find(model.root(), "module"), [&](const std::string& name, pickle::Ref) {
    places.emplace(name, places.size());
  });
  const auto place_of = [&](const Parameter& parameter) {
    const auto found = places.find(parameter.name);
    return found == places.end() ? places.size() : found->second;
  };
  for (auto& group : groups) {
    std::stable_sort(group.begin(), group.end(), [&](const Parameter& a, const Parameter& b) {
      return place_of(a) < place_of(b);
    });
  }
  manifest.warnings.emplace_back(
      "it was saved with round_robin_gradients, which hides the order of the parameters in the "
      "optimizer's groups; that of the module is taken");
}

void add_optimizer_document(const Json& param_groups,
                            const std::vector<std::vector<Parameter>>& groups,
                            const std::vector<Json>& steps, Manifest& manifest,
                            TableBytes& table_bytes) {
  if (!param_groups.is_array() || param_groups.empty()) return;
  const auto numbered = runs_of(param_groups, groups.size());
  if (!numbered && (param_groups.size() != 1 || !param_groups[0].is_object())) return;
  Json named = param_groups;
  std::set<std::string_view> seen;
  for (std::size_t g = 0; g < named.size(); ++g) {
    Json names = Json::array();
    for (const std::size_t run : numbered ? (*numbered)[g] : first_numbers(groups.size())) {
      for (const Parameter& parameter : groups[run]) {
        table_bytes.add_bytes(kOfName + 3 * parameter.name.size());
        if (!seen.insert(parameter.name).second) return;
        names.push_back(parameter.name);
      }
    }
    named[g]["params"] = std::move(names);
    if (const std::string left_out = keep_plain(named[g]); !left_out.empty()) {
      manifest.warnings.push_back(fmt::format(
          "group {} of the optimizer's parameters has {}, which is no plain value and is left out",
          g, left_out));
    }
    if (!set_step(numbered ? (*numbered)[g] : first_numbers(steps.size()), steps, named[g])) {
      manifest.warnings.push_back(fmt::format(
          "group {} of the optimizer's parameters was not stepped as one, so that nobody can go on "
          "from its steps",
          g));
    }
  }
  manifest.documents["optimizer"] =
      Json{{"type", nullptr}, {"param_groups", std::move(named)}}.dump(
          -1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace cairn::detail::deepspeed
