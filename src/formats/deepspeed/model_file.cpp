#include "formats/deepspeed/model_file.hpp"

#include <optional>
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

/// An ordered dict of names and shapes.
std::vector<Parameter> parameters_of(const StateFile& file, Ref dict) {
  std::vector<Parameter> parameters;
  if (dict == kNoRef) return parameters;
  for (auto& [name, ref] : file.entries(dict)) {
    parameters.push_back({name, torch::numbers_of(file.graph(), ref, "a parameter's shape")});
  }
  return parameters;
}

void add_whole(const StateFile& file, const std::string& role, const std::string& name, Ref ref,
               Manifest& manifest) {
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
  manifest.tensors.push_back(std::move(entry));
}

void add_module(const StateFile& model, Manifest& manifest) {
  for (const auto& [name, ref] : model.entries(model.get(model.root(), "module"))) {
    add_whole(model, "module", name, ref, manifest);
  }
}

void add_untrained(const StateFile& model, bool divided, Manifest& manifest) {
  if (!divided) {
    for (const auto& [name, ref] :
         model.entries(model.find(model.root(), "frozen_param_fragments"))) {
      add_whole(model, "frozen", name, ref, manifest);
    }
  }
  const Ref buffers = model.find(model.root(), "buffer_names");
  if (buffers == kNoRef) return;
  const Ref module = model.get(model.root(), "module");
  for (const Ref name : model.graph().elements(buffers)) {
    if (model.graph().kind(name) != Kind::text) model.corrupt("a buffer's name is no text");
    const std::string text(model.graph().text(name));
    add_whole(model, "buffer", text, model.get(module, text), manifest);
  }
}

std::vector<std::vector<Parameter>> groups_of(const StateFile& model) {
  std::vector<std::vector<Parameter>> groups;
  const Ref shapes = model.find(model.root(), "param_shapes");
  if (shapes == kNoRef || model.graph().kind(shapes) != Kind::list) return groups;
  for (const Ref group : model.graph().elements(shapes)) {
    groups.push_back(parameters_of(model, group));
  }
  return groups;
}

Json facts_of(const StateFile& model) {
  Json json = Json::object();
  for (const char* key : {"dp_world_size", "mp_world_size", "global_steps", "global_samples",
                          "skipped_steps", "ds_version"}) {
    const Ref ref = model.find(model.root(), key);
    const auto value = ref == kNoRef ? std::nullopt : torch::scalar_of(model.graph(), ref);
    if (value) json[key] = value->at("value");
  }
  Json shared = Json::object();
  for (const auto& [alias, ref] : model.entries(model.find(model.root(), "shared_params"))) {
    if (model.graph().kind(ref) == Kind::text) shared[alias] = std::string(model.graph().text(ref));
  }
  json["shared_params"] = std::move(shared);
  return json;
}

void add_aliases(const StateFile& model, Manifest& manifest) {
  const Json shared = facts_of(model)["shared_params"];
  if (shared.empty()) return;
  const Json json = {{"aliases", shared}, {"quantized", Json::object()}};
  manifest.documents["model"] = json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace cairn::detail::deepspeed
