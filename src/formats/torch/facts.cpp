#include "formats/torch/facts.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/json_text.hpp"
#include "formats/torch/module.hpp"
#include "formats/torch/numpy.hpp"
#include "formats/torch/optimizer_names.hpp"
#include "formats/torch/tensor.hpp"
#include "formats/torch/values.hpp"
#include "formats/torch/weight.hpp"

namespace cairn::detail::torch {
namespace {

using pickle::Graph;
using pickle::Kind;
using pickle::Ref;

using Path = std::vector<PathKey>;

constexpr std::size_t kBytesOfValue = 64;  // larger ones count as several
constexpr int kMostDepth = 40;
constexpr std::array<std::string_view, 4> kAverageKeys{"ema_state_dict", "model_ema", "ema",
                                                       "state_dict_ema"};
constexpr std::size_t kMostOptimizers = 100;
constexpr std::size_t kMostParameters = 1'000'000;
constexpr std::size_t kMostNameBytes = 64 << 20;

/// Whether a value is one without parts. These come first where not all have room.
bool is_scalar(const Graph& graph, Ref ref) {
  switch (graph.kind(ref)) {
    case Kind::none:
    case Kind::boolean:
    case Kind::integer:
    case Kind::real:
      return true;
    case Kind::text:
      return graph.text(ref).size() <= kBytesOfValue;
    default:
      return false;
  }
}

/// Whether the record of an object tells a value of its state by itself.
bool is_told_in_state(const Graph& graph, Ref ref) {
  return graph.kind(ref) == Kind::text || graph.kind(ref) == Kind::big_integer ||
         is_scalar(graph, ref);
}

/// A value as a JSON tree: tensors and arrays by their names, objects of unknown classes as
/// records. What lies in such an object is in no list of tensors or arrays: there only their class
/// is told.
class JsonTree {
 public:
  explicit JsonTree(const Graph& graph, std::size_t most_values = kMostPlainValues)
      : graph_(graph), most_values_(most_values) {}

  Json of(Ref ref, Path& path, int depth = 0) {
    ref = plain_of(graph_, ref);
    const std::size_t most = most_values_ * kBytesOfValue;
    if (values_ > most_values_ || depth > kMostDepth) return "...";
    const Weight weight = weight_of(graph_, ref, most);
    // Printed, a value has as much in front of it as it lies deep.
    values_ += 1 + weight.bytes / kBytesOfValue + static_cast<std::size_t>(depth / 8);
    work_ += weight.values;
    if (values_ > most_values_) return "...";
    work_ += weight.bytes;
    if (is_tensor(graph_, ref)) {
      return closed_ > 0 ? Json{{"class", "torch.Tensor"}} : Json{{"tensor", name_of(path)}};
    }
    if (const auto leaf = leaf_of(graph_, ref)) return leaf->at("value");
    if (!around_.insert(ref).second) return "...";  // it holds itself, as parents and children do
    Json json = of_parts(ref, path, depth);
    around_.erase(ref);
    return json;
  }

  /// What has parts in the state of an object.
  Json nested_of(Ref ref, Path& path, int depth = 0) {
    Json json = Json::object();
    const Ref attributes = attributes_of(graph_, ref);
    if (attributes == pickle::kNoRef || is_module(graph_, ref)) return json;
    ++closed_;
    const auto pairs = graph_.pairs(attributes);
    for (std::size_t i = 0; i < pairs.size(); i += 2) {
      ++work_;
      if (graph_.kind(pairs[i]) != Kind::text || is_told_in_state(graph_, pairs[i + 1])) continue;
      values_ += graph_.text(pairs[i]).size() / kBytesOfValue;
      if (values_ > most_values_) break;
      append_member(json, std::string(graph_.text(pairs[i])), of(pairs[i + 1], path, depth + 1));
    }
    --closed_;
    return json;
  }

  /// Steps and bytes that all this took, about.
  std::uint64_t work() const { return work_; }

 private:
  Json of_parts(Ref ref, Path& path, int depth) {
    switch (graph_.kind(ref)) {
      case Kind::dict: {
        Json json = Json::object();
        const auto pairs = graph_.pairs(ref);
        for (std::size_t i = 0; i < pairs.size(); i += 2) {
          const bool text = graph_.kind(pairs[i]) == Kind::text;
          if (text) values_ += graph_.text(pairs[i]).size() / kBytesOfValue;
          if (values_ > most_values_) break;
          if (!text && graph_.kind(pairs[i]) != Kind::integer) continue;
          path.push_back(text ? PathKey(std::string(graph_.text(pairs[i])))
                              : PathKey(graph_.integer(pairs[i])));
          append_member(json, text ? std::string(graph_.text(pairs[i])) : graph_.decimal(pairs[i]),
                        of(pairs[i + 1], path, depth + 1));
          path.pop_back();
        }
        return json;
      }
      case Kind::list:
      case Kind::tuple: {
        Json json = Json::array();
        for (const Ref part : graph_.elements(ref)) {
          if (values_ > most_values_) {  // one mark for all that follow
            json.push_back("...");
            break;
          }
          path.emplace_back(static_cast<std::int64_t>(json.size()));
          json.push_back(of(part, path, depth + 1));
          path.pop_back();
        }
        return json;
      }
      case Kind::object:
        if (const auto array = numpy_array_of(graph_, ref); array && array->dtype && closed_ == 0) {
          return {{"array", name_of(path)}};
        }
        break;
      default:
        break;
    }
    Json record = opaque_of(graph_, ref);
    if (Json nested = nested_of(ref, path, depth); !nested.empty()) {
      record["nested"] = std::move(nested);
    }
    return record;
  }

  const Graph& graph_;
  const std::size_t most_values_;
  std::size_t values_ = 0;
  std::uint64_t work_ = 0;
  int closed_ = 0;  // objects around the value
  std::unordered_set<Ref> around_;
};

class Facts {
 public:
  Facts(const Graph& graph, const TensorTable& tensors)
      : graph_(graph), tensors_(tensors), root_(plain_of(graph, graph.root())) {}

  std::map<std::string, std::string> find();

 private:
  std::optional<Ref> get(std::string_view key) const { return graph_.find(root_, key); }
  bool is_lightning() const;
  void find_roles();
  std::optional<std::string> first_dict(std::span<const std::string_view> keys) const;
  std::vector<ModelTensor> model_tensors() const;
  std::vector<OptimizerParameter> parameters_of(Ref optimizer) const;
  std::optional<Shape> shape_of(Ref state) const;
  std::optional<std::vector<std::string>> saved_names(Ref optimizer) const;
  Json optimizer_of(Ref optimizer, Path path) const;

  const Graph& graph_;
  const TensorTable& tensors_;
  Ref root_;
  bool lightning_ = false;
  std::optional<Path> model_;
  std::optional<Path> ema_;
  std::vector<std::pair<Ref, Path>> optimizers_;
};

bool Facts::is_lightning() const {
  if (get("pytorch-lightning_version")) return true;
  int found = 0;
  for (const std::string_view key : {"callbacks", "optimizer_states", "lr_schedulers", "loops"}) {
    found += get(key).has_value();
  }
  return found >= 2;
}

/// The first of the keys under which there is a mapping with something in it.
std::optional<std::string> Facts::first_dict(std::span<const std::string_view> keys) const {
  for (const std::string_view key : keys) {
    const auto found = get(key);
    if (found && !graph_.pairs(*found).empty()) return std::string(key);
  }
  return std::nullopt;
}

void Facts::find_roles() {
  lightning_ = is_lightning();
  if (lightning_) {
    // With weights averaged, state_dict holds the averages, and the training goes on from the
    // other.
    const auto raw = first_dict(std::array<std::string_view, 1>{"current_model_state"});
    if (raw) ema_ = Path{std::string("state_dict")};
    if (raw || get("state_dict")) model_ = Path{raw.value_or("state_dict")};
    if (const auto states = get("optimizer_states")) {
      std::int64_t i = 0;
      for (const Ref state : graph_.elements(*states)) {
        if (optimizers_.size() == kMostOptimizers) break;
        optimizers_.emplace_back(state, Path{std::string("optimizer_states"), i++});
      }
    }
    return;
  }
  for (const std::string_view key : kOptimizerKeys) {
    const auto found = get(key);
    if (found && graph_.find(*found, "param_groups")) {
      optimizers_.emplace_back(*found, Path{std::string(key)});
    }
  }
  if (const auto key = first_dict(kModelKeys)) {
    model_ = Path{*key};
  } else if (optimizers_.empty() && !tensors_.empty()) {
    const auto flat = [](const TensorEntry& tensor) {
      return tensor.path.size() == 1 && std::holds_alternative<std::string>(tensor.path[0]);
    };
    if (std::all_of(tensors_.begin(), tensors_.end(), flat)) model_ = Path{};
  }
  if (const auto key = first_dict(kAverageKeys)) {
    ema_ = Path{*key};
  }
}

std::vector<ModelTensor> Facts::model_tensors() const {
  std::vector<ModelTensor> model;
  if (!model_) return model;
  for (const TensorEntry& tensor : tensors_) {
    const bool inside = tensor.path.size() == model_->size() + 1 &&
                        std::equal(model_->begin(), model_->end(), tensor.path.begin());
    const auto* name = inside ? std::get_if<std::string>(&tensor.path.back()) : nullptr;
    if (name != nullptr) model.push_back({*name, tensor.shape});
  }
  return model;
}

/// The shape of a parameter by the state that optimizers keep for each of its elements.
std::optional<Shape> Facts::shape_of(Ref state) const {
  for (const std::string_view slot : {"exp_avg", "momentum_buffer", "exp_avg_sq", "square_avg",
                                      "sum", "exp_inf", "acc_delta", "prev", "ax"}) {
    const auto tensor = graph_.find(state, slot);
    if (!tensor || !is_tensor(graph_, *tensor)) continue;
    // The record's third argument: (storage, offset, size, ...), maybe within a parameter.
    const auto args = graph_.elements(graph_.object(*tensor).args);
    if (args.size() < 4 || graph_.kind(args[2]) != Kind::tuple) continue;
    Shape shape;
    for (const Ref count : graph_.elements(args[2])) {
      if (graph_.kind(count) != Kind::integer) return std::nullopt;
      shape.push_back(static_cast<std::uint64_t>(graph_.integer(count)));
    }
    return shape;
  }
  return std::nullopt;
}

std::vector<OptimizerParameter> Facts::parameters_of(Ref optimizer) const {
  std::vector<OptimizerParameter> parameters;
  const auto groups = graph_.find(optimizer, "param_groups");
  if (!groups) return parameters;
  std::map<std::int64_t, Ref> states;
  const auto state = graph_.find(optimizer, "state");
  const auto pairs = state ? graph_.pairs(*state) : std::span<const Ref>();
  for (std::size_t i = 0; i < pairs.size(); i += 2) {
    if (graph_.kind(pairs[i]) == Kind::integer) states[graph_.integer(pairs[i])] = pairs[i + 1];
  }
  std::size_t number = 0;
  for (const Ref group : graph_.elements(*groups)) {
    const auto indices = graph_.find(group, "params");
    for (const Ref index : indices ? graph_.elements(*indices) : std::span<const Ref>()) {
      OptimizerParameter parameter{number, std::nullopt};
      if (graph_.kind(index) != Kind::integer || parameters.size() == kMostParameters) return {};
      const auto found = states.find(graph_.integer(index));
      if (found != states.end()) parameter.shape = shape_of(found->second);
      parameters.push_back(std::move(parameter));
    }
    ++number;
  }
  return parameters;
}

/// PyTorch 2.6 and later can save the names in the groups, beside the numbers or (get_state_dict of
/// torch.distributed) in place of them.
std::optional<std::vector<std::string>> Facts::saved_names(Ref optimizer) const {
  std::vector<std::string> names;
  std::size_t bytes = 0;
  const auto groups = graph_.find(optimizer, "param_groups");
  for (const Ref group : groups ? graph_.elements(*groups) : std::span<const Ref>()) {
    const auto indices = graph_.find(group, "params");
    if (!indices) return std::nullopt;
    const auto texts = graph_.elements(graph_.find(group, "param_names").value_or(*indices));
    if (texts.size() != graph_.elements(*indices).size()) return std::nullopt;
    for (const Ref text : texts) {
      if (graph_.kind(text) != Kind::text) return std::nullopt;
      bytes += sizeof(std::string) + graph_.text(text).size();
      if (bytes > kMostNameBytes) return std::nullopt;
      names.emplace_back(graph_.text(text));
    }
  }
  return names;
}

Json Facts::optimizer_of(Ref optimizer, Path path) const {
  Json json = {{"path", json_of(path)}, {"parameters", nullptr}, {"names_from", nullptr}};
  if (const auto names = saved_names(optimizer); names && !names->empty()) {
    json["parameters"] = *names;
    json["names_from"] = "file";
  } else if (const auto found = optimizer_names(model_tensors(), parameters_of(optimizer))) {
    json["parameters"] = *found;
    json["names_from"] = "order and shapes";
  }
  if (const auto groups = graph_.find(optimizer, "param_groups")) {
    path.emplace_back(std::string("param_groups"));
    json["param_groups"] = JsonTree(graph_).of(*groups, path);
  }
  return json;
}

std::map<std::string, std::string> Facts::find() {
  std::map<std::string, std::string> documents;
  if (graph_.kind(root_) != Kind::dict) return documents;
  find_roles();
  Json roles = Json::object();
  if (model_) roles["model"] = json_of(*model_);
  if (!optimizers_.empty()) roles["optimizer"] = json_of(optimizers_.front().second);
  if (ema_) roles["ema"] = json_of(*ema_);
  if (!roles.empty()) documents["roles"] = roles.dump();
  if (!optimizers_.empty()) {
    Json all = Json::array();
    for (const auto& [ref, path] : optimizers_) all.push_back(optimizer_of(ref, path));
    documents["optimizers"] = all.dump();
  }
  if (!lightning_ && optimizers_.empty()) return documents;
  Json training = {{"kind", lightning_ ? "lightning" : "pytorch"}};
  const auto is_told = [&](std::string_view key) {
    const auto is = [&](const Path& path) { return std::get<std::string>(path.front()) == key; };
    return key == "kind" || (model_ && !model_->empty() && is(*model_)) || (ema_ && is(*ema_)) ||
           std::any_of(optimizers_.begin(), optimizers_.end(),
                       [&](const auto& optimizer) { return is(optimizer.second); });
  };
  add_plain_json(graph_, root_, is_told, training);
  documents["training"] = training.dump();
  return documents;
}

}  // namespace

Json plain_json(const Graph& graph, Ref ref, Path path, std::size_t most_values) {
  return JsonTree(graph, most_values).of(ref, path);
}

void add_plain_json(const Graph& graph, Ref dict, const std::function<bool(std::string_view)>& but,
                    Json& json, Path path, std::size_t most_values) {
  const auto pairs = graph.pairs(dict);
  JsonTree tree(graph, most_values);
  std::vector<std::size_t> order;  // epoch and step before a vocabulary that leaves no room
  for (const bool scalars : {true, false}) {
    for (std::size_t i = 0; i < pairs.size(); i += 2) {
      if (is_scalar(graph, pairs[i + 1]) == scalars) order.push_back(i);
    }
  }
  for (const std::size_t i : order) {
    if (graph.kind(pairs[i]) != Kind::text || but(graph.text(pairs[i]))) continue;
    const std::string key(graph.text(pairs[i]));
    path.emplace_back(key);
    append_member(json, key, tree.of(pairs[i + 1], path));
    path.pop_back();
  }
}

Json nested_state(const Graph& graph, Ref ref, std::uint64_t& work) {
  Path path;
  JsonTree tree(graph);
  Json nested = tree.nested_of(ref, path);
  work += tree.work();
  return nested;
}

std::map<std::string, std::string> facts_of(const Graph& graph, const TensorTable& tensors) {
  return Facts(graph, tensors).find();
}

}  // namespace cairn::detail::torch
