#include "torch/documents.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <span>
#include <string_view>
#include <vector>

namespace cairn::detail {
namespace {

constexpr std::string_view kNan = "NaN";
constexpr std::string_view kInfinity = "Infinity";
constexpr std::string_view kMinusInfinity = "-Infinity";

void merge_optimizer(Json& known, const Json& other, std::size_t rank) {
  if (known["type"] != other["type"] ||
      known["param_groups"].size() != other["param_groups"].size()) {
    fail(Errc::mismatch,
         "lower ranks save {} with {} parameter groups but rank {} saves {} with {}; every rank "
         "must give "
         "the same kind of optimizer",
         known["type"].get<std::string>(), known["param_groups"].size(), rank,
         other["type"].get<std::string>(), other["param_groups"].size());
  }
  for (std::size_t g = 0; g < known["param_groups"].size(); ++g) {
    Json& group = known["param_groups"][g];
    Json theirs = other["param_groups"][g];
    std::set<Json> names(group["params"].begin(), group["params"].end());
    for (const Json& name : theirs["params"]) {
      if (names.insert(name).second) group["params"].push_back(name);
    }
    theirs["params"] = group["params"];
    if (theirs != group) {
      fail(Errc::mismatch,
           "the options of parameter group {} of {} on rank {} differ from those on lower ranks; "
           "set "
           "equal options on every rank",
           g, known["type"].get<std::string>(), rank);
    }
  }
}

}  // namespace

Json number_to_json(double value) {
  if (std::isnan(value)) return kNan;
  if (std::isinf(value)) return value > 0 ? kInfinity : kMinusInfinity;
  return value;
}

double number_from_json(const Json& value) {
  if (value == kNan) return std::numeric_limits<double>::quiet_NaN();
  if (value == kInfinity) return std::numeric_limits<double>::infinity();
  if (value == kMinusInfinity) return -std::numeric_limits<double>::infinity();
  return value.get<double>();
}

std::string context_document(const CheckpointInfo& info) {
  Json metrics = Json::object();
  for (const auto& [name, value] : info.metrics) metrics[name] = number_to_json(value);
  return Json{{"epoch", info.epoch}, {"global_step", info.global_step}, {"metrics", metrics}}
      .dump();
}

std::optional<Json> find_document(const Manifest& manifest, const std::string& name) {
  const auto it = manifest.documents.find(name);
  if (it == manifest.documents.end()) return std::nullopt;
  return reading_document(manifest, name, [&] { return Json::parse(it->second); });
}

void read_context(const Manifest& manifest, CheckpointContext& context) {
  context.global_step = manifest.commit.step;
  const auto document = find_document(manifest, "context");
  if (!document) return;
  reading_document(manifest, "context", [&] {
    context.epoch = document->at("epoch").get<std::uint64_t>();
    context.global_step = document->at("global_step").get<std::uint64_t>();
    for (const auto& [name, value] : document->at("metrics").items()) {
      context.metrics[name] = number_from_json(value);
    }
  });
}

void merge_documents(const Comm& comm, StateDocuments& documents) {
  Json mine{{"model", documents.model}};
  if (documents.optimizer) mine["optimizer"] = *documents.optimizer;
  const std::string text = mine.dump();
  if (comm.all_equal(std::hash<std::string>{}(text))) return;
  const auto texts = comm.gather(std::as_bytes(std::span(text)));
  agree(comm, "save: merge documents", [&] {
    for (std::size_t rank = 1; rank < texts.size(); ++rank) {
      const auto* first = reinterpret_cast<const char*>(texts[rank].data());
      const Json theirs = Json::parse(first, first + texts[rank].size());
      documents.model.merge_patch(theirs["model"]);
      if (!theirs.contains("optimizer")) continue;
      if (!documents.optimizer) documents.optimizer = theirs["optimizer"];
      merge_optimizer(*documents.optimizer, theirs["optimizer"], rank);
    }
  });
}

}  // namespace cairn::detail
