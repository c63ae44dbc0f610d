#include "formats/deepspeed/model_file.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "base/throw.hpp"
#include "formats/deepspeed/partitions.hpp"
#include "formats/torch/facts.hpp"
#include "formats/torch/values.hpp"
#include "formats/torch/walk.hpp"
#include "manifest/container_names.hpp"

namespace cairn::detail::deepspeed {

using names::kClientState;
using pickle::Kind;
using pickle::kNoRef;
using pickle::Ref;
using torch::Json;
using torch::StateFile;

namespace {

// As JSON, once more where that is copied, and in two documents, which grow.
constexpr std::uint64_t kOfAlias = 256;

/// What is told otherwise: weights, and what they are.
constexpr std::array<std::string_view, 7> kOfWeights{
    "module",        "optimizer",           "buffer_names",          "param_shapes",
    "shared_params", "frozen_param_shapes", "frozen_param_fragments"};
/// What else DeepSpeed has at the root, where a trainer's own keys are, too.
constexpr std::array<std::string_view, 11> kOwn{
    "lr_scheduler",  "data_sampler", "random_ltd",     "sparse_tensor_module_names",
    "skipped_steps", "global_steps", "global_samples", "dp_world_size",
    "mp_world_size", "ds_config",    "ds_version"};

template <std::size_t N>
bool is_one_of(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

/// An ordered dict of names and shapes.
std::vector<Parameter> parameters_of(const StateFile& file, Ref dict, TableBytes& table_bytes) {
  std::vector<Parameter> parameters;
  file.for_each(dict, [&](const std::string& name, Ref ref) {
    parameters.push_back({name, torch::numbers_of(file.graph(), ref, "a parameter's shape")});
    table_bytes.add_name(name, parameters.back().shape);
  });
  return parameters;
}

void add_whole(const StateFile& file, const std::string& role, const std::string& name, Ref ref,
               Manifest& manifest, TableBytes& table_bytes) {
  const StateFile::Found found = file.tensor(ref, name);
  TensorEntry entry = entry_of(role, name, found.tensor.dtype, found.tensor.shape);
  if (element_count(entry.shape) != 0) {
    entry.offset = found.offset;
    Extent extent;
    extent.file = file.number();
    extent.offset = found.offset;
    extent.box = Box::whole(entry.shape);
    entry.extents.push_back(std::move(extent));
    if (!found.tensor.contiguous) {
      entry.layout = Layout::strided;
      entry.strides = found.tensor.strides;
    }
  }
  table_bytes.add(entry);
  manifest.tensors.push_back(std::move(entry));
}

void add_module(const StateFile& model, Manifest& manifest, TableBytes& table_bytes) {
  std::vector<std::string> others;
  model.for_each(model.get(model.root(), "module"), [&](const std::string& name, Ref ref) {
    if (torch::is_tensor(model.graph(), ref)) {
      add_whole(model, "module", name, ref, manifest, table_bytes);
    } else if (model.graph().kind(ref) != Kind::none) {
      others.push_back(name);
    }
  });
  if (others.empty()) return;
  manifest.warnings.push_back(fmt::format(
      "'module' has {} that is no tensor, '{}', and is left out",
      others.size() == 1 ? "1 entry" : fmt::format("{} entries, such as the first,", others.size()),
      others[0]));
}

void add_untrained(const StateFile& model, bool divided, Manifest& manifest,
                   TableBytes& table_bytes) {
  if (!divided) {
    model.for_each(model.find(model.root(), "frozen_param_fragments"),
                   [&](const std::string& name, Ref ref) {
                     add_whole(model, "frozen", name, ref, manifest, table_bytes);
                   });
  }
  const Ref buffers = model.find(model.root(), "buffer_names");
  if (buffers == kNoRef) return;
  const Ref module = model.get(model.root(), "module");
  for (const Ref name : model.graph().elements(buffers)) {
    if (model.graph().kind(name) != Kind::text) model.corrupt("a buffer's name is no text");
    const std::string text(model.graph().text(name));
    add_whole(model, "buffer", text, model.get(module, text), manifest, table_bytes);
  }
}

std::vector<std::vector<Parameter>> groups_of(const StateFile& model, TableBytes& table_bytes) {
  std::vector<std::vector<Parameter>> groups;
  const Ref shapes = model.find(model.root(), "param_shapes");
  if (shapes == kNoRef || model.graph().kind(shapes) != Kind::list) return groups;
  for (const Ref group : model.graph().elements(shapes)) {
    table_bytes.add_bytes(2 * sizeof(groups[0]));  // an empty group takes room, too
    groups.push_back(parameters_of(model, group, table_bytes));
  }
  return groups;
}

Json facts_of(const StateFile& model, TableBytes& table_bytes) {
  Json json = Json::object();
  for (const char* key : {"dp_world_size", "mp_world_size", "global_steps", "global_samples",
                          "skipped_steps", "ds_version"}) {
    const Ref ref = model.find(model.root(), key);
    const auto value = ref == kNoRef ? std::nullopt : torch::scalar_of(model.graph(), ref);
    if (value) json[key] = value->at("value");
  }
  Json shared = Json::object();
  model.for_each(model.find(model.root(), "shared_params"), [&](const std::string& alias, Ref ref) {
    if (model.graph().kind(ref) != Kind::text) return;
    const std::string_view name = model.graph().text(ref);
    table_bytes.add_bytes(kOfAlias + kTimesTold * (alias.size() + name.size()));
    // No key is there twice, and to look for it would take as long as there are keys.
    shared.get_ref<Json::object_t&>().emplace_back(alias, std::string(name));
  });
  json["shared_params"] = std::move(shared);
  json["client_state"] = Json::object();
  torch::add_plain_json(
      model.graph(), model.root(),
      [](std::string_view key) { return is_one_of(kOfWeights, key) || is_one_of(kOwn, key); },
      json["client_state"], {std::string(kClientState)}, torch::kFewPlainValues);
  return json;
}

void add_values(const StateFile& model, Manifest& manifest, TableBytes& table_bytes) {
  torch::WalkBudget budget;
  torch::Contents contents;
  try {
    contents = torch::walk(model.graph(), model.storages(), table_bytes, budget, {{}, kOfWeights});
  } catch (const Error& error) {
    if (error.code() != Errc::unsupported) throw;
    manifest.warnings.push_back(
        fmt::format("what is beside the weights is not read: {}", error.what()));
    return;
  }
  for (TensorEntry& tensor : contents.tensors) {
    tensor.name = fmt::format("{}/{}", kClientState, tensor.name);
    tensor.path.insert(tensor.path.begin(), std::string(kClientState));
    for (Extent& extent : tensor.extents) extent.file = model.number();
    manifest.tensors.push_back(std::move(tensor));
  }
  manifest.documents["objects"] = std::move(contents.objects);
  manifest.documents["opaque"] = std::move(contents.opaque);
  manifest.documents["arrays"] = std::move(contents.arrays);
  if (contents.containers != "[]") {
    manifest.documents["containers"] = std::move(contents.containers);
  }
  manifest.warnings.insert(manifest.warnings.end(), contents.warnings.begin(),
                           contents.warnings.end());
  const bool lightning = model.find(model.root(), "pytorch-lightning_version") != kNoRef;
  Json training = {{"kind", lightning ? "lightning" : "pytorch"}};
  torch::add_plain_json(
      model.graph(), model.root(),
      [](std::string_view key) {
        return key == "kind" || key == "ds_config" || is_one_of(kOfWeights, key);
      },
      training, {std::string(kClientState)}, torch::kFewPlainValues);
  manifest.documents["training"] = training.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void add_aliases(const Json& facts, Manifest& manifest) {
  const Json& shared = facts.at("shared_params");
  if (shared.empty()) return;
  const Json json = {{"aliases", shared}, {"quantized", Json::object()}};
  manifest.documents["model"] = json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace cairn::detail::deepspeed
