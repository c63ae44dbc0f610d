#include "torch/documents.hpp"

#include <algorithm>
#include <functional>
#include <set>
#include <span>
#include <string_view>
#include <vector>

#include "torch/text.hpp"

namespace cairn::detail {
namespace {

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

std::map<std::string, std::string> texts_of(const StateDocuments& documents) {
  std::map<std::string, std::string> texts{{"model", documents.model.dump()}};
  if (documents.optimizer) texts["optimizer"] = documents.optimizer->dump();
  return texts;
}

}  // namespace

std::string context_document(const CheckpointInfo& info) {
  Json metrics = Json::object();
  for (const auto& [name, value] : info.metrics) metrics[name] = number_to_json(value);
  return to_text({{"epoch", info.epoch}, {"global_step", info.global_step}, {"metrics", metrics}});
}

std::string user_document(const CheckpointInfo& info) {
  Json user = Json::object();
  for (const auto& [name, text] : info.metadata) {
    user[name] = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (user[name].is_discarded()) {
      fail(Errc::usage, "the metadata '{}' of a save is not JSON; quote a text", name);
    }
  }
  return to_text(user);
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

std::map<std::string, std::string> merge_documents(const Comm& comm,
                                                   const StateDocuments& documents) {
  std::map<std::string, std::string> texts;
  std::string mine;
  agree(comm, "save: documents", [&] {
    texts = texts_of(documents);
    mine = Json(texts).dump();
  });
  if (comm.all_equal(std::hash<std::string>{}(mine))) return texts;
  const auto gathered = comm.gather(std::as_bytes(std::span(mine)));
  agree(comm, "save: merge documents", [&] {
    if (!comm.is_root()) return;
    StateDocuments merged = documents;
    for (std::size_t rank = 1; rank < gathered.size(); ++rank) {
      const auto* first = reinterpret_cast<const char*>(gathered[rank].data());
      const Json theirs = Json::parse(first, first + gathered[rank].size());
      merged.model.merge_patch(Json::parse(theirs["model"].get<std::string>()));
      if (!theirs.contains("optimizer")) continue;
      const Json optimizer = Json::parse(theirs["optimizer"].get<std::string>());
      if (!merged.optimizer) merged.optimizer = optimizer;
      merge_optimizer(*merged.optimizer, optimizer, rank);
    }
    texts = texts_of(merged);
  });
  return texts;
}

}  // namespace cairn::detail
