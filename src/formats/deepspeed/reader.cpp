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
#include "formats/deepspeed/model_file.hpp"
#include "formats/deepspeed/partitions.hpp"
#include "formats/deepspeed/tag.hpp"
#include "formats/deepspeed/universal.hpp"
#include "formats/torch/state_file.hpp"
#include "formats/torch/values.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;
using deepspeed::Parameter;
using deepspeed::Partition;
using pickle::Ref;
using torch::Json;
using torch::StateFile;

constexpr std::size_t kMostNameBytes = 256;

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
    if (name.size() > kMostNameBytes) continue;
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

/// Frozen parameters of stage 3: a fragment in each rank's file of the model.
void add_frozen(const std::deque<StateFile>& models, Manifest& manifest) {
  const StateFile& first = models.front();
  for (const Parameter& parameter :
       deepspeed::parameters_of(first, first.find(first.root(), "frozen_param_shapes"))) {
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

/// The partitions of ZeRO, put together.
void read_zero(const fs::path& tag, Manifest& manifest) {
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
  const std::vector<std::vector<Parameter>> groups = deepspeed::groups_of(model);
  if (stage == 3) {
    require_all(files.models, partitions.front().ranks, "the model");
    std::vector<Parameter> all;
    for (const auto& group : groups) all.insert(all.end(), group.begin(), group.end());
    deepspeed::add_divided(partitions, all, manifest);
    add_frozen(models, manifest);
  } else if (!partitions.empty()) {
    deepspeed::add_groups(partitions, groups, manifest);
  }
  deepspeed::add_model(model, stage == 3, manifest);
  Json facts = {{"tag", tag.filename().string()}, {"zero_stage", stage}};
  facts.update(deepspeed::facts_of(model));
  manifest.documents["deepspeed"] = facts.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

Manifest read_deepspeed(const fs::path& directory) {
  Manifest manifest;
  manifest.format = "deepspeed";
  const fs::path tag = deepspeed::tagged(directory, manifest);
  if (deepspeed::is_universal(tag)) {
    deepspeed::read_universal(tag, manifest);
  } else {
    read_zero(tag, manifest);
  }
  return manifest;
}

}  // namespace cairn::detail
