#include "formats/deepspeed/universal.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/throw.hpp"
#include "base/utf8.hpp"
#include "formats/deepspeed/model_file.hpp"
#include "formats/deepspeed/optimizer.hpp"
#include "formats/deepspeed/partitions.hpp"
#include "formats/torch/facts.hpp"
#include "formats/torch/state_file.hpp"
#include "formats/torch/values.hpp"
#include "os/file.hpp"

namespace cairn::detail::deepspeed {
namespace {

namespace fs = std::filesystem;
using pickle::Kind;
using pickle::kNoRef;
using pickle::Ref;
using torch::Json;
using torch::StateFile;

constexpr std::string_view kZero = "zero";
constexpr std::string_view kWeights = "fp32";
constexpr std::string_view kOptimizer = "optimizer_state.pt";  // what is not of single parameters

/// What is in a directory, in the order of the names.
std::vector<fs::path> sorted(const fs::path& directory) {
  std::vector<fs::path> paths;
  for (const fs::directory_entry& entry : entries_of(directory)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// The parameters' directories and their files, and what is to be told about all.
class Universal {
 public:
  Universal(const fs::path& tag, Manifest& manifest, TableBytes& table_bytes)
      : tag_(tag), manifest_(manifest), table_bytes_(table_bytes) {}

  void read() {
    read_models();
    std::error_code ignored;
    for (const fs::path& path : sorted(tag_ / kZero)) {
      if (fs::is_directory(path, ignored)) {
        read_parameter(path);
      } else if (path.filename() == kOptimizer) {
        read_optimizer(path);
      }
    }
    if (manifest_.tensors.empty()) fail(Errc::corrupt, "its 'zero' holds no parameter");
    finish();
  }

 private:
  /// One file of the model, where the model is not divided: of several, each has other parts of the
  /// weights, which `zero` has whole.
  void read_models() {
    std::vector<fs::path> whole;
    std::vector<fs::path> models;
    for (const fs::path& path : sorted(tag_)) {
      const std::string name = path.filename().string();
      if (!name.ends_with("_model_states.pt") || name.find("mp_rank_") == std::string::npos) {
        continue;
      }
      models.push_back(path);
      if (name.starts_with("mp_rank_")) whole.push_back(path);
    }
    if (models.empty()) return;
    const StateFile model(whole.empty() ? models[0] : whole[0], manifest_, table_bytes_);
    groups_ = groups_of(model, table_bytes_);
    undo_round_robin(model, groups_, manifest_);
    for (const auto& group : groups_) {
      for (const Parameter& parameter : group) shapes_[parameter.name] = parameter.shape;
    }
    facts_ = facts_of(model, table_bytes_);
    add_aliases(facts_, manifest_);
    add_values(model, manifest_, table_bytes_);
    if (whole.size() == 1 || (whole.empty() && models.size() == 1)) {
      if (!whole.empty()) add_module(model, manifest_, table_bytes_);
      add_untrained(model, whole.empty(), manifest_, table_bytes_);
    } else {
      manifest_.warnings.push_back(
          fmt::format("the weights that the model computes with are in {} files by ranks, and are "
                      "left out; those of the optimizer are whole",
                      models.size()));
    }
  }

  void read_parameter(const fs::path& directory) {
    const std::string name = directory.filename().string();
    if (!is_utf8(name)) fail(Errc::corrupt, "a parameter's name is no UTF-8");
    bool has_weights = false;
    for (const fs::path& path : sorted(directory)) {
      const std::string role = path.stem().string();
      if (path.extension() != ".pt" || !is_utf8(role)) continue;
      has_weights = has_weights || role == kWeights;
      read_state(path, role, name);
    }
    if (!has_weights) {
      fail(Errc::corrupt, "its parameter '{}' has no '{}.pt'", name, kWeights);
    }
  }

  /// A dict with the tensor under `param`, or (stage 3, and steps) the bare value.
  void read_state(const fs::path& path, const std::string& role, const std::string& name) {
    const StateFile file(path, manifest_, table_bytes_, fmt::format("zero/{}/{}.pt", name, role));
    const Ref param = file.find(file.root(), "param");
    const Ref value = param == kNoRef ? file.root() : param;
    if (!torch::is_tensor(file.graph(), value)) {
      const auto number = torch::scalar_of(file.graph(), value);
      if (!number) file.corrupt("it holds neither a tensor nor a number");
      const Json& known = numbers_[role][name] = number->at("value");
      if (known.is_string()) table_bytes_.add_bytes(3 * known.get_ref<const std::string&>().size());
      return;
    }
    add_whole(file, role, name, value, manifest_, table_bytes_);
    if (param == kNoRef) give_shape(file, name);
  }

  /// Stage 3 knows its parameters flat; their shapes are in the file of the model.
  void give_shape(const StateFile& file, const std::string& name) {
    TensorEntry& tensor = manifest_.tensors.back();
    const auto known = shapes_.find(name);
    if (known == shapes_.end() || tensor.shape.size() != 1 || known->second == tensor.shape) return;
    if (element_count(known->second) != tensor.shape[0]) {
      file.corrupt(fmt::format("it has {} elements, but the parameter is {}", tensor.shape[0],
                               to_string(known->second)));
    }
    if (tensor.layout == Layout::strided) file.corrupt("it is no flat run of elements");
    tensor.shape = known->second;
    for (Extent& extent : tensor.extents) extent.box = Box::whole(tensor.shape);
  }

  void read_optimizer(const fs::path& path) {
    const StateFile file(path, manifest_, table_bytes_, fmt::format("zero/{}", kOptimizer));
    const Ref stage = file.find(file.root(), "zero_stage");
    if (stage != kNoRef) facts_["zero_stage"] = file.integer(stage, "zero_stage");
    const Ref groups = file.find(file.root(), "param_groups");
    if (groups != kNoRef) {
      Json& json = facts_["param_groups"] = torch::plain_json(file.graph(), groups);
      table_bytes_.add_bytes(kTimesTold *
                             json.dump(-1, ' ', false, Json::error_handler_t::replace).size());
    }
  }

  /// The file of one pipeline stage names its own parameters alone.
  bool has_all_groups() const {
    return std::all_of(manifest_.tensors.begin(), manifest_.tensors.end(),
                       [&](const TensorEntry& tensor) {
                         return tensor.path[0] != PathKey(std::string(kWeights)) ||
                                shapes_.contains(std::get<std::string>(tensor.path[1]));
                       });
  }

  /// The step of each group of parameters, where all of it has the same.
  std::vector<Json> steps() const {
    const auto known = numbers_.find("step");
    std::vector<Json> steps(groups_.size());
    if (known == numbers_.end()) return steps;
    const auto step_of = [&](const Parameter& parameter) {
      const auto step = known->second.find(parameter.name);
      return step == known->second.end() ? Json() : step->second;
    };
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      if (groups_[g].empty()) continue;
      const Json first = step_of(groups_[g][0]);
      const bool same = std::all_of(groups_[g].begin(), groups_[g].end(),
                                    [&](const auto& next) { return step_of(next) == first; });
      if (same) steps[g] = first;
    }
    return steps;
  }

  void finish() {
    facts_["tag"] = tag_.filename().string();
    facts_["universal"] = true;
    // Alike for all parameters, as a rule.
    for (auto& [role, by_name] : numbers_) {
      const bool same = std::all_of(by_name.begin(), by_name.end(), [&](const auto& pair) {
        return pair.second == by_name.begin()->second;
      });
      facts_[role] = same ? by_name.begin()->second : Json(by_name);
    }
    if (has_all_groups()) {
      add_optimizer_document(facts_.value("param_groups", Json()), groups_, steps(), manifest_,
                             table_bytes_);
    }
    manifest_.documents["deepspeed"] = facts_.dump(-1, ' ', false, Json::error_handler_t::replace);
  }

  const fs::path& tag_;
  Manifest& manifest_;
  TableBytes& table_bytes_;
  std::vector<std::vector<Parameter>> groups_;
  std::map<std::string, Shape> shapes_;
  std::map<std::string, std::map<std::string, Json>> numbers_;  // by role and parameter
  Json facts_ = Json::object();
};

}  // namespace

bool is_universal(const fs::path& tag) {
  std::error_code ignored;
  for (fs::directory_iterator entry(tag / kZero, ignored), end; !ignored && entry != end;
       entry.increment(ignored)) {
    if (fs::exists(entry->path() / fmt::format("{}.pt", kWeights), ignored)) return true;
  }
  return false;
}

void read_universal(const fs::path& tag, Manifest& manifest, TableBytes& table_bytes) {
  Universal(tag, manifest, table_bytes).read();
}

}  // namespace cairn::detail::deepspeed
