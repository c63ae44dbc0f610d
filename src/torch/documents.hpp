#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "base/throw.hpp"
#include "cairn/comm.hpp"
#include "cairn/context.hpp"
#include "cairn/manifest.hpp"
#include "pipeline/json_numbers.hpp"

namespace cairn::detail {

using Json = nlohmann::json;

/// The document "context".
std::string context_document(const CheckpointInfo& info);

/// The document "user": the trainer's own metadata. Errors: usage, where a text is not JSON.
std::string user_document(const CheckpointInfo& info);

/// Runs `read`, which looks into the document `name`. Errors: corrupt, where the document is not as
/// it must be.
template <class F>
auto reading_document(const Manifest& manifest, const std::string& name, F&& read) {
  try {
    return std::forward<F>(read)();
  } catch (const Json::exception& error) {
    fail(Errc::corrupt, "'{}': the document '{}' can't be understood ({}); use another checkpoint",
         manifest.path().string(), name, error.what());
  }
}

/// The document of that name, if there is one. Errors: corrupt.
std::optional<Json> find_document(const Manifest& manifest, const std::string& name);

/// Fills epoch, step and metrics. Errors: corrupt.
void read_context(const Manifest& manifest, CheckpointContext& context);

/// The documents that describe tensors. Ranks may hold different ones (pipeline stages, optimizers
/// that are split by parameter), but only rank 0's documents are written.
struct StateDocuments {
  Json model = Json::object();
  std::optional<Json> optimizer;
};

/// The documents as texts by name; on rank 0 with what only other ranks know. Collective; small
/// messages only when all are equal. Errors: mismatch, when optimizers differ in more than their
/// parameters.
std::map<std::string, std::string> merge_documents(const Comm& comm,
                                                   const StateDocuments& documents);

}  // namespace cairn::detail
