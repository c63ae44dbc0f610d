#include "pipeline/foreign.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "base/throw.hpp"
#include "cairn/tensor_view.hpp"
#include "checkpoint/convert_documents.hpp"
#include "manifest/container_names.hpp"
#include "manifest/path_json.hpp"

namespace cairn::detail {
namespace {

using Json = nlohmann::json;
using Path = std::vector<PathKey>;

constexpr std::string_view kModel = "model/";
constexpr std::string_view kOptimizer = "optimizer/";
constexpr std::string_view kOther = "other/";
constexpr const char* kContext = "context";

/// The components that PyTorch's and Lightning's wrappers put before a model's names.
constexpr std::array<std::string_view, 4> kWrappers{"module", "model", "_orig_mod",
                                                    "_forward_module"};

/// The value below a key, or null.
Json value_at(const Json& json, std::string_view key) {
  const auto found = json.is_object() ? json.find(key) : json.end();
  return json.is_object() && found != json.end() ? *found : Json(nullptr);
}

bool is_below(const Path& path, const Path& root) {
  return path.size() > root.size() && std::equal(root.begin(), root.end(), path.begin());
}

/// A count that is no number, or negative, is none.
std::optional<std::uint64_t> count_at(const Json& json, std::string_view key) {
  const Json value = value_at(json, key);
  if (!value.is_number_integer() || value.get<std::int64_t>() < 0) return std::nullopt;
  return value.get<std::uint64_t>();
}

class Translation {
 public:
  explicit Translation(Manifest manifest)
      : manifest_(std::move(manifest)),
        travelling_(travelling_in(manifest_)),
        names_(manifest_),
        training_(document_of(manifest_.documents, "training")) {
    const Json roles = document_of(manifest_.documents, "roles");
    model_ = path_from(value_at(roles, "model"));
    optimizer_ = path_from(value_at(roles, "optimizer"));
    const Json optimizers = document_of(manifest_.documents, "optimizers");
    if (optimizers.is_array() && !optimizers.empty()) facts_ = optimizers.front();
    const Json names = value_at(facts_, "parameters");
    if (names.is_array()) parameters_ = names.get<std::vector<std::string>>();
    number_parameters();
  }

  /// A container that was made from another format.
  Manifest complete() {
    put_aside();
    add_documents();
    return std::move(manifest_);
  }

  Manifest translate() {
    if (travelling_.packed) {
      take_packed();
    } else {
      rename();
      add_documents();
    }
    check_names();
    return std::move(manifest_);
  }

 private:
  /// The groups with the parameters' names, where their numbers can be told for certain, or are
  /// names.
  void number_parameters() {
    if (parameters_.empty()) return;
    Json groups = value_at(facts_, "param_groups");
    if (!groups.is_array()) return;
    std::set<std::string> numbers;
    for (Json& group : groups) {
      const Json list = value_at(group, "params");
      if (!list.is_array()) return;
      Json names = Json::array();
      for (const Json& number : list) {
        const bool is_key = number.is_number_integer() || number.is_string();
        if (!is_key || numbers.size() == parameters_.size()) return;
        names.push_back(parameters_[numbers.size()]);
        numbers.insert(number.dump(-1, ' ', false, Json::error_handler_t::replace));
      }
      group["params"] = std::move(names);
      group.erase("step");  // PyTorch's count is in the state; Apex leaves an old one here
    }
    if (numbers.size() != parameters_.size()) return;
    groups_ = std::move(groups);
  }

  /// What cairn itself wrote from a container.
  void take_packed() {
    manifest_.commit.step = travelling_.step;
    for (auto& [name, text] : travelling_.documents) {
      if (name != kMetadata) manifest_.documents[name] = std::move(text);
    }
    for (TensorEntry& tensor : manifest_.tensors.all()) {
      tensor.name = container_name(travelling_, names_, tensor);
    }
  }

  void rename() {
    for (TensorEntry& tensor : manifest_.tensors.all()) tensor.name = name_of(tensor);
  }

  std::string name_of(const TensorEntry& tensor) const {
    std::string name = names_.of(tensor);
    if (!model_ && !optimizer_) return name;
    const bool of_model = name.starts_with(kModel) && model_.has_value();
    return of_model || stays(name, tensor.path) ? name : beside(tensor.name);
  }

  /// What lies beside the model in its file is no tensor of the model, and of several optimizers
  /// the first one counts.
  bool stays(std::string_view name, const Path& path) const {
    if (name.starts_with(kModel)) {
      return model_ && is_below(path, *model_);
    }
    return !name.starts_with(kOptimizer) || (optimizer_ && is_below(path, *optimizer_));
  }

  static std::string beside(const std::string& name) {
    return fmt::format("{}{}", kOther, escape_component(name));
  }

  /// What its document "tree" says of where the tensors of a container were. Those that stay keep
  /// their names, by which engines read them.
  void put_aside() {
    if (!model_ && !optimizer_) return;
    std::set<std::string> staying;
    std::set<std::string> told;
    for (const auto& item : document_of(manifest_.documents, kTree)) {
      if (!item.is_array() || item.size() != 2 || !item[0].is_string()) continue;
      const auto path = path_from(item[1]);
      if (!path) continue;
      const auto name = item[0].get<std::string>();
      told.insert(name);
      if (stays(name, *path)) staying.insert(name);
    }
    if (told.size() == staying.size()) return;
    for (TensorEntry& tensor : manifest_.tensors.all()) {
      if (told.contains(tensor.name) && !staying.contains(tensor.name)) {
        tensor.name = beside(tensor.name);
      }
    }
  }

  /// The parameters of an optimizer that is keyed by names already, and tells no groups of them.
  std::vector<std::string> parameters_with_slots() const {
    std::vector<std::string> parameters;
    std::set<std::string> seen;
    for (std::size_t t = 0; t < manifest_.tensors.size(); ++t) {
      const std::string_view name = manifest_.tensors.head(t).name;
      const std::size_t slash = name.rfind('/');
      if (!name.starts_with(kOptimizer) || slash <= kOptimizer.size()) continue;
      std::string parameter =
          unescape_component(name.substr(kOptimizer.size(), slash - kOptimizer.size()));
      if (seen.insert(parameter).second) parameters.push_back(std::move(parameter));
    }
    return parameters;
  }

  void add_documents() {
    add_context();
    add_optimizer();
    add_scheduler();
    add_lineage();
  }

  void add(const std::string& name, const Json& json) {
    manifest_.documents.try_emplace(name,
                                    json.dump(-1, ' ', false, Json::error_handler_t::replace));
  }

  void add_context() {
    const auto training = document_of(manifest_.documents, "training");
    const auto epoch = progress_in(training, "epoch");
    std::optional<std::uint64_t> step;
    for (const std::string_view key : {"global_step", "step", "iteration", "global_steps"}) {
      if (!step) step = progress_in(training, key);
    }
    if (!epoch && !step) return;
    add(kContext, {{"epoch", epoch.value_or(0)},
                   {"global_step", step.value_or(0)},
                   {"metrics", Json::object()}});
  }

  void add_optimizer() {
    const bool has_groups = value_at(facts_, "param_groups").is_array();
    const auto parameters = has_groups ? std::vector<std::string>() : parameters_with_slots();
    if (!optimizer_ && parameters.empty()) return;
    Json document{{"type", nullptr}};
    if (!parameters.empty()) {
      document["parameters"] = parameters;
    } else if (groups_.is_null()) {
      document["unusable"] =
          "the names of its parameters can't be told for certain, because PyTorch numbers them";
    } else {
      document["param_groups"] = groups_;
    }
    add("optimizer", document);
  }

  /// LibTorch's schedulers count the steps that they took, and look at that number in the next one;
  /// PyTorch's count first and look then: hence the 1.
  void add_scheduler() {
    Json state = value_at(training_, "lr_schedulers");
    if (state.is_array()) state = state.empty() ? Json(nullptr) : state.front();
    for (const std::string_view key :
         {"scheduler", "scheduler_state_dict", "lr_scheduler", "lr_scheduler_state_dict"}) {
      if (!state.is_object()) state = value_at(training_, key);
      if (!state.is_object()) state = value_at(value_at(training_, "app"), key);
    }
    if (const auto last = count_at(state, "last_epoch")) {
      add("scheduler", {{"kind", "torch"}, {"step_count", *last + 1}});
    }
  }

  void add_lineage() {
    const Json said = value_at(document_of(manifest_.documents, "anemoi"), "metadata");
    const auto text = [&](std::string_view key) {
      const Json value = value_at(said, key);
      return value.is_string() ? value.get<std::string>() : std::string();
    };
    if (text("uuid").empty() && text("run_id").empty()) return;
    add("lineage", {{"run_id", text("run_id")},
                    {"uuid", text("uuid")},
                    {"parent_uuid", text("parent_uuid")},
                    {"fork", false}});
  }

  void check_names() const {
    std::set<std::string_view> seen;
    for (const TensorEntry& tensor : manifest_.tensors.all()) {
      if (tensor.name.starts_with(kOther) || seen.insert(tensor.name).second) continue;
      fail(Errc::mismatch, "two tensors of '{}' would be called '{}'", manifest_.path().string(),
           tensor.name);
    }
  }

  Manifest manifest_;
  Travelling travelling_;
  names::ContainerNames names_;
  Json training_;
  Json facts_;  ///< of the first optimizer
  Json groups_;
  std::optional<Path> model_;
  std::optional<Path> optimizer_;
  std::vector<std::string> parameters_;
};

}  // namespace

Manifest as_container(Manifest manifest) {
  if (!manifest.is_container()) return Translation(std::move(manifest)).translate();
  if (manifest.documents.contains(kContext)) return manifest;  // a trainer saved it
  return Translation(std::move(manifest)).complete();
}

std::vector<std::string> wrapper_prefixes(const Manifest& manifest) {
  // A trainer's own names are what it says. as_container gives files of PyTorch's, which have the
  // document "training", a context, too.
  const auto& documents = manifest.documents;
  const bool own = documents.contains(kContext) && !documents.contains("training");
  if (manifest.is_container() ? own : travelling_in(manifest).packed) return {};
  std::set<std::string> found;
  for (std::size_t t = 0; t < manifest.tensors.size(); ++t) {
    const std::string_view name = manifest.tensors.head(t).name;
    if (!name.starts_with(kModel)) continue;
    const std::string dotted = unescape_component(name.substr(kModel.size()));
    for (std::size_t at = 0, dot = dotted.find('.'); dot != std::string::npos;
         at = dot + 1, dot = dotted.find('.', at)) {
      const auto component = std::string_view(dotted).substr(at, dot - at);
      if (std::find(kWrappers.begin(), kWrappers.end(), component) == kWrappers.end()) break;
      found.insert(dotted.substr(0, dot + 1));
    }
  }
  std::vector<std::string> prefixes(found.begin(), found.end());
  std::stable_sort(prefixes.begin(), prefixes.end(),
                   [](const auto& a, const auto& b) { return a.size() < b.size(); });
  return prefixes;
}

}  // namespace cairn::detail
