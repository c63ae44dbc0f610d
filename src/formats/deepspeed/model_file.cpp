#include "formats/deepspeed/model_file.hpp"

#include <optional>
#include <string_view>
#include <utility>

#include "base/throw.hpp"
#include "formats/deepspeed/partitions.hpp"
#include "formats/torch/values.hpp"

namespace cairn::detail::deepspeed {

using pickle::Kind;
using pickle::kNoRef;
using pickle::Ref;
using torch::Json;
using torch::StateFile;

namespace {

// As JSON, once more where that is copied, and in two documents, which grow.
constexpr std::uint64_t kOfAlias = 256;
constexpr std::uint64_t kTimesTold = 6;

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
  model.for_each(model.get(model.root(), "module"), [&](const std::string& name, Ref ref) {
    add_whole(model, "module", name, ref, manifest, table_bytes);
  });
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
  return json;
}

void add_aliases(const Json& facts, Manifest& manifest) {
  const Json& shared = facts.at("shared_params");
  if (shared.empty()) return;
  const Json json = {{"aliases", shared}, {"quantized", Json::object()}};
  manifest.documents["model"] = json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace cairn::detail::deepspeed
