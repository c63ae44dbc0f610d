#include "formats/deepspeed/reader.hpp"

#include <algorithm>
#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/throw.hpp"
#include "formats/deepspeed/partitions.hpp"
#include "formats/deepspeed/state_file.hpp"
#include "formats/torch/values.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;
using deepspeed::Parameter;
using deepspeed::Partition;
using deepspeed::StateFile;
using pickle::Kind;
using pickle::kNoRef;
using pickle::Ref;
using torch::Json;

constexpr std::uint64_t kMostTagBytes = 256;
constexpr std::string_view kLatest = "latest";

/// The directory that `latest` names, or the given one where there is no such file.
fs::path tagged(const fs::path& directory, Manifest& manifest) {
  std::error_code ignored;
  if (!fs::exists(directory / kLatest, ignored)) return directory;
  const File file = File::open_read(directory / kLatest);
  if (file.size() > kMostTagBytes) fail(Errc::corrupt, "its 'latest' names no tag");
  std::string tag(file.size(), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(tag)));
  while (!tag.empty() && (tag.back() == '\n' || tag.back() == '\r')) tag.pop_back();
  if (tag.empty() || tag == "." || tag == ".." || tag.find('/') != std::string::npos ||
      tag.find('\0') != std::string::npos) {
    fail(Errc::unsafe, "its 'latest' names '{}', which leaves the directory", tag);
  }
  manifest.files.push_back({directory / kLatest, file.size(), Access::extents, file.fingerprint()});
  if (!fs::is_directory(directory / tag, ignored)) {
    fail(Errc::corrupt, "its 'latest' names '{}', which does not exist", tag);
  }
  return directory / tag;
}

/// The files of a tag by their ranks.
struct Files {
  std::map<int, fs::path> models;
  std::map<int, fs::path> optimizers;
};

int number_of(const std::ssub_match& text) { return text.matched ? std::stoi(text.str()) : 0; }

Files files_in(const fs::path& directory) {
  const std::regex known(
      R"((?:bf16_|fp16_)?(?:zero_pp_rank_(\d{1,7})_)?mp_rank_(\d{1,7})_(model|optim)_states\.pt)");
  const std::regex experts(R"((layer_\d+_)?(expert|expp).*_states\.pt|layer_.*-model_states\.pt)");
  Files files;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.size() > kMostTagBytes) continue;
    std::smatch match;
    if (std::regex_match(name, experts)) {
      fail(Errc::unsupported,
           "'{}' belongs to a model of experts or pipelines, which cairn cannot put together; load "
           "it with DeepSpeed and save its state_dict() with torch.save",
           name);
    }
    if (!std::regex_match(name, match, known)) continue;
    if (number_of(match[2]) != 0) {
      fail(Errc::unsupported,
           "'{}' is a part of a model that is divided among ranks (tensor parallelism), and how is "
           "not in the file; load it with DeepSpeed and save its state_dict() with torch.save",
           name);
    }
    auto& ranks = match[3] == "model" ? files.models : files.optimizers;
    if (!ranks.emplace(number_of(match[1]), entry->path()).second) {
      fail(Errc::corrupt, "it has two files of one rank: '{}'", name);
    }
  }
  if (error) fail_system("list", directory, error.value());
  if (files.models.empty())
    fail(Errc::corrupt, "its directory '{}' has no file of a model", directory.filename().string());
  return files;
}

void require_all(const std::map<int, fs::path>& files, std::int64_t ranks, const char* what) {
  if (static_cast<std::int64_t>(files.size()) == ranks && files.rbegin()->first == ranks - 1)
    return;
  fail(Errc::corrupt, "it was saved by {} ranks and has {} files of {}", ranks, files.size(), what);
}

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
  TensorEntry entry = deepspeed::entry_of(role, name, found.tensor.dtype, found.tensor.shape);
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

/// What rank 0's file of the model holds whole; of stage 3 only buffers are. Without ZeRO (stage 0)
/// the module is all there is.
void add_model(const StateFile& model, std::int64_t stage, Manifest& manifest) {
  const Ref module = model.get(model.root(), "module");
  if (stage != 3) {
    for (const auto& [name, ref] : model.entries(module)) {
      add_whole(model, "module", name, ref, manifest);
    }
    if (stage == 0) return;
    for (const auto& [name, ref] :
         model.entries(model.find(model.root(), "frozen_param_fragments"))) {
      add_whole(model, "frozen", name, ref, manifest);
    }
  }
  const Ref buffers = model.find(model.root(), "buffer_names");
  if (buffers == kNoRef) return;
  for (const Ref name : model.graph().elements(buffers)) {
    if (model.graph().kind(name) != Kind::text) model.corrupt("a buffer's name is no text");
    const std::string text(model.graph().text(name));
    add_whole(model, "buffer", text, model.get(module, text), manifest);
  }
}

/// Frozen parameters of stage 3: a fragment in each rank's file of the model.
void add_frozen(const std::deque<StateFile>& models, Manifest& manifest) {
  const StateFile& first = models.front();
  for (const Parameter& parameter :
       parameters_of(first, first.find(first.root(), "frozen_param_shapes"))) {
    std::vector<std::vector<deepspeed::Run>> runs;
    for (const StateFile& model : models) {
      const Ref fragments = model.get(model.root(), "frozen_param_fragments");
      const StateFile::Found found =
          model.tensor(model.get(fragments, parameter.name), parameter.name);
      if (!found.tensor.contiguous) model.corrupt("a fragment of a parameter is no flat run");
      runs.push_back(
          {{model.number(), found.offset, element_count(found.tensor.shape), found.tensor.dtype}});
    }
    deepspeed::add_divided_tensor(runs, 0, "frozen", parameter, manifest);
  }
}

/// The stage that a checkpoint without files of the optimizer says it was saved with.
std::int64_t stage_of(const Files& files, const StateFile& model) {
  const bool by_rank = std::any_of(files.models.begin(), files.models.end(), [](const auto& file) {
    return file.second.filename().string().find("zero_pp_rank_") != std::string::npos;
  });
  if (by_rank) return 3;
  const Ref zero = model.find(model.find(model.root(), "ds_config"), "zero_optimization");
  const Ref stage = model.find(zero, "stage");
  if (stage == kNoRef || model.graph().kind(stage) != Kind::integer) return 0;
  return model.graph().integer(stage);
}

/// A number that lies in a file.
std::optional<Json> number_at(const deepspeed::Run& run, const Manifest& manifest) {
  const File file = File::open_read(manifest.files.at(run.file).path);
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
      return std::nullopt;
  }
}

/// What the optimizer has once, and what its groups of parameters are set to.
void add_optimizer(const Partition& partition, const Manifest& manifest, Json& json) {
  Json values = Json::object();
  for (const auto& [slot, text] : partition.values) values[slot] = Json::parse(text);
  for (const auto& [slot, run] : partition.numbers) {
    if (auto value = number_at(run, manifest)) values[slot] = std::move(*value);
  }
  if (!values.empty()) json["optimizer"] = std::move(values);
  if (!partition.param_groups.empty()) json["param_groups"] = Json::parse(partition.param_groups);
}

/// Names that stand for others, as a container says it.
void add_aliases(const StateFile& model, Manifest& manifest) {
  Json aliases = Json::object();
  for (const auto& [alias, ref] : model.entries(model.find(model.root(), "shared_params"))) {
    if (model.graph().kind(ref) == Kind::text)
      aliases[alias] = std::string(model.graph().text(ref));
  }
  if (aliases.empty()) return;
  const Json json = {{"aliases", std::move(aliases)}, {"quantized", Json::object()}};
  manifest.documents["model"] = json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string document_of(const StateFile& model, const fs::path& tag, std::int64_t stage,
                        const Partition* partition, const Manifest& manifest) {
  Json json = {{"tag", tag.filename().string()}, {"zero_stage", stage}};
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
  if (partition != nullptr) add_optimizer(*partition, manifest, json);
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

Manifest read_deepspeed(const fs::path& directory) {
  Manifest manifest;
  manifest.format = "deepspeed";
  const fs::path tag = tagged(directory, manifest);
  const Files files = files_in(tag);
  std::vector<Partition> partitions;
  for (const auto& [rank, path] : files.optimizers) {
    partitions.push_back(deepspeed::read_partition(StateFile(path, manifest)));
    if (partitions.back().stage != partitions.front().stage) {
      fail(Errc::corrupt, "its ranks disagree about the stage");
    }
    require_all(files.optimizers, partitions.back().ranks, "the optimizer");
  }
  const std::int64_t stage = partitions.empty() ? 0 : partitions.front().stage;
  std::deque<StateFile> models;  // which stay where they are: their values point into them
  for (const auto& [rank, path] : files.models) {
    if (stage == 3 || models.empty()) models.emplace_back(path, manifest);
  }
  const StateFile& model = models.front();
  if (const std::int64_t saved = stage_of(files, model); partitions.empty() && saved != 0) {
    fail(Errc::corrupt,
         "it was saved with ZeRO stage {} and has no files of the optimizer ('*_optim_states.pt'), "
         "which hold its weights; copy them, too",
         saved);
  }
  std::vector<std::vector<Parameter>> groups;
  const Ref shapes = model.find(model.root(), "param_shapes");
  if (shapes != kNoRef && model.graph().kind(shapes) == Kind::list) {
    for (const Ref group : model.graph().elements(shapes)) {
      groups.push_back(parameters_of(model, group));
    }
  }
  if (stage == 3) {
    require_all(files.models, partitions.front().ranks, "the model");
    std::vector<Parameter> all;
    for (const auto& group : groups) all.insert(all.end(), group.begin(), group.end());
    deepspeed::add_divided(partitions, all, manifest);
    add_frozen(models, manifest);
  } else if (!partitions.empty()) {
    deepspeed::add_groups(partitions, groups, manifest);
  }
  add_model(model, stage, manifest);
  manifest.documents["deepspeed"] =
      document_of(model, tag, stage, partitions.empty() ? nullptr : &partitions.front(), manifest);
  add_aliases(model, manifest);
  if (stage == 0 && model.find(model.root(), "optimizer") != kNoRef &&
      model.graph().kind(model.find(model.root(), "optimizer")) != Kind::none) {
    manifest.warnings.emplace_back(
        "the optimizer's state, which is in the model's file without ZeRO, is not read");
  }
  return manifest;
}

}  // namespace cairn::detail
