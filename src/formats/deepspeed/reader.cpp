#include "formats/deepspeed/reader.hpp"

#include <algorithm>
#include <iterator>
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
#include "formats/deepspeed/optimizer.hpp"
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
using pickle::Kind;
using pickle::kNoRef;
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
  for (const fs::directory_entry& entry : entries_of(directory)) {
    const std::string name = entry.path().filename().string();
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
    if (!ranks.emplace(number_of(match[1]), entry.path()).second) {
      fail(Errc::corrupt, "it has two files of one rank: '{}'", name);
    }
  }
  if (files.models.empty())
    fail(Errc::corrupt, "its directory '{}' has no file of a model", directory.filename().string());
  return files;
}

void require_all(const std::map<int, fs::path>& files, std::int64_t ranks, const char* what) {
  if (static_cast<std::int64_t>(files.size()) == ranks && files.rbegin()->first == ranks - 1)
    return;
  fail(Errc::corrupt, "it was saved by {} ranks and has {} files of {}", ranks, files.size(), what);
}

/// Frozen parameters of stage 3: a fragment in each rank's file of the model. The files come one by
/// one, so that never more than one of them is in memory.
class Frozen {
 public:
  Frozen(const StateFile& first, TableBytes& table_bytes)
      : table_bytes_(table_bytes),
        parameters_(deepspeed::parameters_of(first, first.find(first.root(), "frozen_param_shapes"),
                                             table_bytes)),
        runs_(parameters_.size()) {
    add(first);
  }

  void add(const StateFile& model) {
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const std::string& name = parameters_[i].name;
      const Ref fragments = model.get(model.root(), "frozen_param_fragments");
      const StateFile::Found found = model.tensor(model.get(fragments, name), name);
      if (!found.tensor.contiguous) model.corrupt("a fragment of a parameter is no flat run");
      table_bytes_.add_bytes(deepspeed::kRunBytes);
      runs_[i].push_back(
          {{model.number(), found.offset, element_count(found.tensor.shape), found.tensor.dtype}});
    }
  }

  void add_to(Manifest& manifest) const {
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      deepspeed::add_divided_tensor(runs_[i], 0, "frozen", parameters_[i], manifest, table_bytes_);
    }
  }

 private:
  TableBytes& table_bytes_;
  std::vector<Parameter> parameters_;
  std::vector<std::vector<std::vector<deepspeed::Run>>> runs_;  // by parameter and rank: one
};

/// The stage that a checkpoint without files of the optimizer says it was saved with.
std::int64_t saved_stage(const Files& files, const StateFile& model) {
  const bool by_rank = std::any_of(files.models.begin(), files.models.end(), [](const auto& file) {
    return file.second.filename().string().find("zero_pp_rank_") != std::string::npos;
  });
  if (by_rank) return 3;
  const Ref zero = model.find(model.find(model.root(), "ds_config"), "zero_optimization");
  const Ref stage = model.find(zero, "stage");
  if (stage == kNoRef || model.graph().kind(stage) != Kind::integer) return 0;
  return model.graph().integer(stage);
}

/// A model without partitions of ZeRO: as it was saved without ZeRO (stage 0), or what is left
/// where the optimizer's files are missing. Returns the stage. Stage 3 has its weights in these
/// alone.
std::int64_t read_module(const Files& files, const StateFile& model, Manifest& manifest,
                         TableBytes& table_bytes) {
  const std::int64_t stage = saved_stage(files, model);
  if (stage == 3) {
    fail(Errc::corrupt,
         "it was saved with ZeRO stage 3 and has no files of the optimizer ('*_optim_states.pt'), "
         "which hold its weights; copy them, too");
  }
  deepspeed::add_module(model, manifest, table_bytes);
  const Ref optimizer = model.find(model.root(), "optimizer");
  if (stage != 0) {
    manifest.warnings.push_back(fmt::format(
        "it was saved with ZeRO stage {} and has no files of the optimizer ('*_optim_states.pt'): "
        "only the weights that the model computes with are there, in their precision",
        stage));
  } else if (optimizer != kNoRef && model.graph().kind(optimizer) != Kind::none) {
    manifest.warnings.emplace_back(
        "the optimizer's state, which is in the model's file without ZeRO, is not read");
  }
  return stage;
}

std::vector<Partition> partitions_of(const Files& files, Manifest& manifest,
                                     TableBytes& table_bytes) {
  std::vector<Partition> partitions;
  for (const auto& [rank, path] : files.optimizers) {
    partitions.push_back(
        deepspeed::read_partition(StateFile(path, manifest, table_bytes), table_bytes));
    Partition& last = partitions.back();
    if (last.stage != partitions.front().stage) {
      fail(Errc::corrupt, "its ranks disagree about the stage");
    }
    require_all(files.optimizers, last.ranks, "the optimizer");
    if (partitions.size() == 1) {
      table_bytes.add_bytes(deepspeed::kTimesTold * last.param_groups.size());
      continue;
    }
    last.once.clear();  // what all ranks have alike is told by the first
    last.param_groups = {};
  }
  return partitions;
}

/// The partitions of ZeRO, put together, and what they say of the optimizer.
void add_partitions(const std::vector<Partition>& partitions, const StateFile& model,
                    Manifest& manifest, TableBytes& table_bytes, Json& told) {
  const bool divided = partitions.front().stage == 3;
  std::vector<std::vector<Parameter>> groups = deepspeed::groups_of(model, table_bytes);
  if (divided) {
    deepspeed::add_divided(partitions, groups, manifest, table_bytes);
    groups = deepspeed::divided_groups(partitions, std::move(groups));
  } else {
    deepspeed::add_groups(partitions, groups, manifest, table_bytes);
    deepspeed::add_module(model, manifest, table_bytes);
    deepspeed::undo_round_robin(model, groups, manifest);
  }
  const auto values = deepspeed::tell_optimizer(partitions.front(), manifest, told);
  const auto steps = values.find("step");
  deepspeed::add_optimizer_document(told.value("param_groups", Json()), groups,
                                    steps == values.end() ? std::vector<Json>() : steps->second,
                                    manifest, table_bytes);
  deepspeed::add_untrained(model, divided, manifest, table_bytes);
}

/// A tag as training saves it: files of the model, and with ZeRO of the optimizer.
void read_tag(const fs::path& tag, Manifest& manifest, TableBytes& table_bytes) {
  const Files files = files_in(tag);
  const std::vector<Partition> partitions = partitions_of(files, manifest, table_bytes);
  std::int64_t stage = partitions.empty() ? 0 : partitions.front().stage;
  Json facts;
  std::optional<Frozen> frozen;
  if (stage == 3) require_all(files.models, partitions.front().ranks, "the model");
  {
    const StateFile model(files.models.begin()->second, manifest, table_bytes);
    facts = deepspeed::facts_of(model, table_bytes);
    if (partitions.empty()) {
      stage = read_module(files, model, manifest, table_bytes);
    } else {
      add_partitions(partitions, model, manifest, table_bytes, facts);
      deepspeed::add_aliases(facts, manifest);
      if (stage == 3) frozen.emplace(model, table_bytes);
    }
    deepspeed::add_values(model, manifest, table_bytes);
  }
  if (frozen) {
    for (auto file = std::next(files.models.begin()); file != files.models.end(); ++file) {
      frozen->add(StateFile(file->second, manifest, table_bytes));
    }
    frozen->add_to(manifest);
  }
  Json told = {{"tag", tag.filename().string()}, {"zero_stage", stage}};
  told.update(facts);
  manifest.documents["deepspeed"] = told.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

Manifest read_deepspeed(const fs::path& directory, TableBytes& table_bytes) {
  Manifest manifest;
  manifest.format = "deepspeed";
  const fs::path tag = deepspeed::tagged(directory, manifest);
  if (deepspeed::is_universal(tag)) {
    deepspeed::read_universal(tag, manifest, table_bytes);
  } else {
    read_tag(tag, manifest, table_bytes);
  }
  return manifest;
}

}  // namespace cairn::detail
