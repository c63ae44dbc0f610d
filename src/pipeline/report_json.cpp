#include <nlohmann/json.hpp>

#include "cairn/context.hpp"

namespace cairn {
namespace {

using Json = nlohmann::ordered_json;

Json numbers(const Shape& shape) { return std::vector<std::uint64_t>(shape.begin(), shape.end()); }

}  // namespace

std::string to_json(const LoadReport& report) {
  Json json{{"loaded", report.loaded},
            {"missing", report.missing},
            {"unexpected", report.unexpected},
            {"mismatched", Json::array()},
            {"skipped", Json::array()},
            {"cast", Json::array()},
            {"resharded", report.resharded},
            {"rng_restored", report.rng_restored},
            {"fraction_matched", report.fraction_matched}};
  for (const auto& [name, in_checkpoint, in_memory] : report.mismatched) {
    json["mismatched"].push_back({{"name", name},
                                  {"in_checkpoint", numbers(in_checkpoint)},
                                  {"in_memory", numbers(in_memory)}});
  }
  for (const auto& [name, reason] : report.skipped) {
    json["skipped"].push_back({{"name", name}, {"reason", reason}});
  }
  for (const auto& [name, from, to] : report.cast) {
    json["cast"].push_back({{"name", name}, {"from", to_string(from)}, {"to", to_string(to)}});
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace cairn
