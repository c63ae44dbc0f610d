#include "checkpoint/convert_tree.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/base64.hpp"
#include "base/throw.hpp"
#include "cairn/tensor_view.hpp"
#include "formats/torch/values.hpp"
#include "manifest/container_names.hpp"
#include "manifest/dtype_names.hpp"

namespace cairn::detail {
namespace {

using Json = nlohmann::ordered_json;
using Path = std::vector<PathKey>;

constexpr std::string_view kModel = "model/";

class TorchPlanner {
 public:
  TorchPlanner(const Manifest& source, const Travelling& travelling, const ConvertOptions& options,
               ConvertPlan& plan)
      : source_(source),
        travelling_(travelling),
        options_(options),
        plan_(plan),
        tree_(plan.torch.file.tree),
        names_(source),
        documents_(source.is_container() || (travelling.packed && source.format != "torch")
                       ? travelling.documents
                       : source.documents),
        lightning_(options.to == TargetFormat::lightning),
        has_tree_(source.is_container() ? document("tree").is_array() : is_tree(source)),
        is_parallel_(source.format == "deepspeed" || source.format == "megatron"),
        by_meaning_(source.is_container() || (travelling.packed && source.format != "torch")) {}

  void plan() {
    plan_storages(source_, source_.format == "torch" ? document("aliases") : Json(), plan_);
    if (has_meaning()) find_parameters();
    if (lightning_) moves_ = lightning_moves(source_.format, documents_, plan_.result.left_out);
    find_model_keys();
    place_tensors();
    if (!options_.weights_only) {
      if (has_tree_) add_values();
      if (by_meaning_) add_state();
      if (!by_meaning_ && has_meaning()) add_groups();
    }
    if (has_tree_) set_kinds();
    if (lightning_) complete();
  }

 private:
  Json document(const std::string& name) const { return document_of(documents_, name); }
  /// A container's document that should be an object.
  Json fields(const std::string& name) const {
    Json json = document_of(travelling_.documents, name);
    return json.is_object() ? std::move(json) : Json::object();
  }

  /// Whether tensors go where their names of containers belong.
  bool has_meaning() const { return by_meaning_ || (lightning_ && is_parallel_); }

  // Where a container's tensors go.
  void find_parameters();
  void find_model_keys();
  Path path_by_meaning(const std::string& name) const;
  Path optimizer_keys() const {
    if (lightning_) return {std::string("optimizer_states"), std::int64_t{0}};
    return {std::string("optimizer")};
  }

  /// Where the keys of another file go.
  Path moved(Path path) const;

  void place_tensors();
  Path path_of(std::size_t t) const;
  bool is_state_apart(std::size_t t, const Path& path) const;
  /// `placed`: the tensors that the source's tree placed, by all their names.
  void place_aliases(const std::vector<bool>& placed);
  /// Of which nothing is selected, but for their groups: they are told to be left out.
  std::vector<Path> optimizers_without_state();
  void add_values();
  void add_arrays();
  void set_kinds();
  void add_state();
  void add_groups();
  void add_schedule();
  void add_own();
  bool is_packed(const std::string& document) const {
    return !is_origin(document) && !(has_tree_ && describes_tree(document));
  }
  /// Whether it is a reason to pack documents: tied weights tell themselves.
  bool is_packed_alone(const std::string& document) const {
    return is_packed(document) && !(document == "model" && tells_tied_weights_alone());
  }
  bool tells_tied_weights_alone() const {
    const Json model = fields("model");
    return model.size() == 2 && model.contains("aliases") && model.contains("quantized") &&
           model["quantized"].is_object() && model["quantized"].empty() &&
           model["aliases"].size() == names::aliases_in(documents_).size();
  }
  void complete();

  const Manifest& source_;
  const Travelling& travelling_;
  const ConvertOptions& options_;
  ConvertPlan& plan_;
  torch::Tree& tree_;
  const names::ContainerNames names_;
  const std::map<std::string, std::string>& documents_;
  const bool lightning_;
  const bool has_tree_;     ///< the source tells the paths of its tensors
  const bool is_parallel_;  ///< it has the model in parts, among others
  const bool by_meaning_;   ///< it tells what they are by names of containers
  Path model_keys_;
  std::map<std::string, std::int64_t> parameters_;  ///< numbers in the optimizer, by name
  std::vector<std::pair<Path, Path>> moves_;        ///< for Lightning
};

void TorchPlanner::find_parameters() {
  for (const Json& group : fields("optimizer").value("param_groups", Json::array())) {
    for (const Json& name : group.value("params", Json::array())) {
      parameters_.emplace(name.get<std::string>(), parameters_.size());
    }
  }
}

/// A model alone is a dict of its tensors.
void TorchPlanner::find_model_keys() {
  if (lightning_) {
    model_keys_ = {std::string("state_dict")};
    return;
  }
  const bool models_only =
      std::all_of(plan_.tensors.begin(), plan_.tensors.end(),
                  [](const TensorEntry& tensor) { return tensor.name.starts_with("model/"); });
  const bool documents =
      std::any_of(travelling_.documents.begin(), travelling_.documents.end(),
                  [&](const auto& document) { return is_packed_alone(document.first); });
  const bool alone = models_only && !documents && travelling_.step == 0;
  if (!alone && !options_.weights_only) model_keys_ = {std::string("model")};
}

Path TorchPlanner::path_by_meaning(const std::string& name) const {
  const std::string_view view = name;
  const std::size_t slash = view.find('/');
  if (view.starts_with("model/") && view.find('/', slash + 1) == std::string_view::npos) {
    Path path = model_keys_;
    path.emplace_back(unescape_component(view.substr(slash + 1)));
    return path;
  }
  const std::size_t slot = view.rfind('/');
  if (view.starts_with("optimizer/") && slot > slash &&
      std::count(view.begin(), view.end(), '/') == 2) {
    const std::string parameter = unescape_component(view.substr(slash + 1, slot - slash - 1));
    const auto number = parameters_.find(parameter);
    if (number != parameters_.end()) {
      Path path = optimizer_keys();
      path.emplace_back(std::string("state"));
      path.emplace_back(number->second);
      path.emplace_back(unescape_component(view.substr(slot + 1)));
      return path;
    }
  }
  return {std::string(names::kOwnKey), std::string(names::kOwnTensors), name};
}

Path TorchPlanner::moved(Path path) const {
  for (const auto& [from, to] : moves_) {
    if (!starts_with(path, from) || path.size() == from.size()) continue;
    Path result = to;
    result.insert(result.end(), path.begin() + static_cast<std::ptrdiff_t>(from.size()),
                  path.end());
    return result;
  }
  return path;
}

Path TorchPlanner::path_of(std::size_t t) const {
  const TensorEntry& tensor = source_.tensors[plan_.sources[t]];
  const std::string& name = plan_.tensors[t].name;
  if (options_.weights_only && !by_meaning_) {
    return path_by_meaning(names_.of(renamed_entry(source_, options_, tensor)));
  }
  if (lightning_ && is_parallel_) {
    const TensorEntry wanted = renamed_entry(source_, options_, tensor);
    if (!wanted.path.empty()) return path_by_meaning(names_.of(wanted));
  }
  if (by_meaning_) {
    const bool plain = !source_.is_container() && !names::looks_like_path(name) &&
                       !travelling_.paths.contains(name);
    return path_by_meaning(plain ? "model/" + escape_component(name) : name);
  }
  if (name != tensor.name) return moved(renamed_path(source_, tensor, name));
  if (!tensor.path.empty() || source_.format == "torch") return moved(tensor.path);
  Path path = lightning_ ? model_keys_ : Path();
  path.emplace_back(name);
  return path;
}

void TorchPlanner::place_tensors() {
  std::vector<bool> placed(plan_.tensors.size());
  if (source_.is_container() && has_tree_ && !options_.weights_only) {
    std::unordered_map<std::string_view, std::size_t> taken;
    for (std::size_t t = 0; t < plan_.sources.size(); ++t) {
      taken.emplace(source_.tensors[plan_.sources[t]].name, t);
    }
    const Json tree = document(kTree);
    const Path weights{std::string("state_dict")};
    // A model alone, wherever it lay, is Lightning's weights.
    const bool alone = lightning_ && std::none_of(tree.begin(), tree.end(), [&](const Json& item) {
                         return starts_with(moved(torch::path_of(item.at(1))), weights);
                       });
    for (const Json& item : tree) {
      const auto& name = item.at(0).get_ref<const std::string&>();
      const auto found = taken.find(name);
      if (found == taken.end()) continue;  // it was left out
      const std::size_t t = found->second;
      const std::string& now = plan_.tensors[t].name;
      const std::size_t last = name.rfind('/') + 1;
      // What is something else now is no more where it was.
      const bool stays = now == name || now.rfind('/') + 1 == last;
      if (!stays || now.compare(0, last, name, 0, last) != 0) continue;
      if (alone && name.starts_with(kModel)) continue;
      Path path = torch::path_of(item.at(1));
      // A tied weight's other name stays.
      if (!path.empty() &&
          path.back() == PathKey(unescape_component(std::string_view(name).substr(last)))) {
        path.back() = unescape_component(std::string_view(now).substr(last));
      }
      tree_.add_tensor(moved(path), t);
      placed[t] = true;
    }
  }
  bool state_apart = false;
  for (std::size_t t = 0; t < plan_.tensors.size(); ++t) {
    if (placed[t]) continue;
    const Path path = path_of(t);
    state_apart |= is_state_apart(t, path);
    tree_.add_tensor(path, t);
  }
  if (state_apart) {
    plan_.result.left_out.push_back(
        {"optimizer",
         "its groups of parameters are not known, so that its state lies below 'cairn', "
         "where PyTorch does not look for it"});
  }
  if (by_meaning_ || source_.format == "deepspeed") place_aliases(placed);
}

/// Whether it is an optimizer's (of Megatron: whatever is not the model's), and goes where only
/// cairn finds it.
bool TorchPlanner::is_state_apart(std::size_t t, const Path& path) const {
  if (path.size() != 3 || path[0] != PathKey(std::string(names::kOwnKey))) return false;
  const std::string name = names_.of(source_.tensors[plan_.sources[t]]);
  return name.starts_with("optimizer/") || name.starts_with("megatron/");
}

/// Tied weights that a container has once are there by all their names again.
void TorchPlanner::place_aliases(const std::vector<bool>& placed) {
  const auto aliases = names::aliases_in(documents_);
  if (!by_meaning_) {                                      // beside the others, by their own names
    std::unordered_multimap<std::string, std::string> of;  // aliases
    for (const auto& [alias, name] : aliases) of.emplace(name, alias);
    for (std::size_t t = 0; t < plan_.tensors.size(); ++t) {
      const auto [begin, end] = of.equal_range(names_.of(source_.tensors[plan_.sources[t]]));
      for (auto it = begin; it != end; ++it) {
        Path path = path_of(t);
        path.back() = unescape_component(std::string_view(it->second).substr(kModel.size()));
        if (!tree_.contains(path)) tree_.add_tensor(path, t);
      }
    }
    return;
  }
  const TensorNames by_name{std::span<const TensorEntry>(plan_.tensors)};
  for (const auto& [alias, name] : aliases) {
    const std::string of = source_.is_container() ? name : names::plain_name(name);
    const auto t = by_name.find(renamed(options_, of));
    const Path path = path_by_meaning(renamed(options_, alias));
    if (t && !placed[*t] && !tree_.contains(path)) tree_.add_tensor(path, *t);
  }
}

/// An entry of the document `opaque`.
std::string why_left_out(const Json& object) {
  if (const auto key = object.find("key"); key != object.end()) {
    return fmt::format("a key that is no text and no number: {}", key->get<std::string>());
  }
  const std::string cls = object.value("class", "an unknown class");
  if (object.contains("too_large")) return fmt::format("more of {} than cairn lists", cls);
  return fmt::format("an object of {}", cls);
}

std::vector<Path> TorchPlanner::optimizers_without_state() {
  std::vector<std::pair<Path, bool>> tensors;
  if (source_.is_container()) {
    const TensorNames by_name{std::span<const TensorEntry>(plan_.tensors)};
    for (const Json& item : document("tree")) {
      const std::string name = renamed(options_, item.at(0).get<std::string>());
      tensors.emplace_back(torch::path_of(item.at(1)), by_name.find(name).has_value());
    }
  } else {
    for (const TensorEntry& tensor : source_.tensors) tensors.emplace_back(tensor.path, false);
    for (const std::size_t t : plan_.sources) tensors[t].second = true;
  }
  std::vector<Path> without = detail::optimizers_without_state(document("optimizers"), tensors);
  for (const Path& path : without) {
    plan_.result.left_out.push_back({torch::name_of(path), std::string(kNoState)});
  }
  return without;
}

void TorchPlanner::add_values() {
  const std::vector<Path> without = optimizers_without_state();
  for (const Json& object : document("objects")) {
    const Path path = torch::path_of(object.at("path"));
    const bool is_of_them = std::any_of(without.begin(), without.end(), [&](const Path& optimizer) {
      return starts_with(path, optimizer);
    });
    if (is_of_them) continue;
    if (tree_.add_leaf(moved(path), object)) continue;
    plan_.result.left_out.push_back(
        {torch::name_of(path),
         fmt::format("weights_only reads no {}", object.value("type", "such value"))});
  }
  add_arrays();
  for (const Json& object : document("opaque")) {
    plan_.result.left_out.push_back(
        {torch::name_of(torch::path_of(object.at("path"))), why_left_out(object)});
  }
}

void TorchPlanner::add_arrays() {
  for (const Json& array : document("arrays")) {
    const Path path = torch::path_of(array.at("path"));
    const auto dtype = dtype_from_name(array.at("dtype").get<std::string>());
    const std::vector<std::byte> bytes = bytes_of_base64(array.at("base64").get<std::string>());
    Shape shape;
    for (const Json& count : array.at("shape")) shape.push_back(count.get<std::uint64_t>());
    if (!dtype || element_count(shape) * item_bytes(*dtype) != bytes.size()) {
      fail(Errc::corrupt, "array '{}' has another size than its shape", torch::name_of(path));
    }
    tree_.add_array(moved(path), plan_.torch.file.arrays.size());
    plan_.torch.file.arrays.push_back(
        {*dtype, shape, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}});
  }
}

void TorchPlanner::set_kinds() {
  for (const Json& container : document("containers")) {
    const bool tuple = container.value("kind", "") == "tuple";
    tree_.set_kind(moved(torch::path_of(container.at("path"))),
                   tuple ? torch::Tree::Kind::tuple : torch::Tree::Kind::dict);
  }
}

/// What the documents of a container say, as a training in Python has it.
void TorchPlanner::add_state() {
  if (!has_tree_) {
    add_groups();
    const Json context = fields("context");
    for (const char* key : {"epoch", "global_step"}) {
      if (context.contains(key)) tree_.add_value(Path{std::string(key)}, context[key]);
    }
    if (lightning_) add_schedule();
  }
  add_own();
}

void TorchPlanner::add_groups() {
  Json groups = fields("optimizer").value("param_groups", Json());
  if (!groups.is_array()) return;
  Path state = optimizer_keys();
  state.emplace_back(std::string("state"));
  const bool selected =
      tree_.contains(state) ||
      std::none_of(source_.tensors.begin(), source_.tensors.end(), [&](const TensorEntry& tensor) {
        return names_.of(tensor).starts_with("optimizer/");
      });
  if (selected) return add_optimizer(plan_.torch.file, optimizer_keys(), std::move(groups));
  plan_.result.left_out.push_back({"optimizer", std::string(kNoState)});
}

/// A scheduler of LibTorch knows its steps alone; those of Python take any part of their state.
void TorchPlanner::add_schedule() {
  const Json scheduler = fields("scheduler");
  if (scheduler.value("kind", "") != "torch") return;
  const auto steps = scheduler.at("step_count").get<std::uint64_t>();
  tree_.add_value(Path{std::string("lr_schedulers")},
                  Json::array({{{"last_epoch", steps}, {"_step_count", steps + 1}}}));
}

/// What leads back to the same container.
void TorchPlanner::add_own() {
  const bool any =
      travelling_.step != 0 ||
      std::any_of(travelling_.documents.begin(), travelling_.documents.end(),
                  [&](const auto& document) { return is_packed_alone(document.first); });
  if (!any) return;
  const std::string own(names::kOwnKey);
  // With a tree the file is another program's again; the step marks one of ours.
  if (!has_tree_ || travelling_.step != 0) {
    tree_.add_value(Path{own, std::string("step")}, travelling_.step);
  }
  for (const auto& [name, text] : travelling_.documents) {
    if (is_packed(name)) tree_.add_value(Path{own, std::string("documents"), name}, text);
  }
}

void TorchPlanner::complete() {
  if (!tree_.contains(Path{std::string("state_dict")}) && !plan_.tensors.empty()) {
    fail(Errc::unsupported,
         "'{}' does not tell which of its tensors are the model's; name them with --select and "
         "--weights-only",
         source_.path().string());
  }
  complete_lightning(tree_, documents_, travelling_.step);
}

}  // namespace

void plan_torch(const Manifest& source, const Travelling& travelling, const ConvertOptions& options,
                ConvertPlan& plan) {
  try {
    TorchPlanner(source, travelling, options, plan).plan();
  } catch (const nlohmann::json::exception& error) {
    fail(Errc::corrupt, "a document of '{}' is broken: {}", source.path().string(), error.what());
  }
}

}  // namespace cairn::detail
