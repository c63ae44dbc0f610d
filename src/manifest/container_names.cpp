#include "manifest/container_names.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "cairn/tensor_view.hpp"
#include "manifest/documents.hpp"
#include "manifest/path_json.hpp"

namespace cairn::detail::names {
namespace {

constexpr std::string_view kModel = "model/";
constexpr std::array<std::string_view, 4> kModelKeys{"model", "state_dict", "model_state_dict",
                                                     "module"};

std::string in_model(std::string_view name) {
  return fmt::format("{}{}", kModel, escape_component(name));
}

/// The text key that is `back` places before the end of the path; empty where there is none.
std::string_view key_at(const TensorEntry& tensor, std::size_t back) {
  if (back >= tensor.path.size()) return {};
  const auto* text = std::get_if<std::string>(&tensor.path[tensor.path.size() - 1 - back]);
  return text == nullptr ? std::string_view() : std::string_view(*text);
}

std::string in_optimizer(std::string_view parameter, std::string_view slot) {
  return fmt::format("optimizer/{}/{}", escape_component(parameter), escape_component(slot));
}

/// The state of an optimizer that PyTorch flattened (flatten_optimizer_state_dict, as torchtitan
/// does): "state.PARAMETER.SLOT" below "optimizer".
std::optional<std::string> in_flattened(const TensorEntry& tensor) {
  constexpr std::string_view kState = "state.";
  const std::string_view key = key_at(tensor, 0);
  const std::size_t dot = key.rfind('.');
  const bool flattened = tensor.path.size() == 2 && key_at(tensor, 1) == "optimizer" &&
                         key.starts_with(kState) && dot > kState.size();
  if (!flattened) return std::nullopt;
  return in_optimizer(key.substr(kState.size(), dot - kState.size()), key.substr(dot + 1));
}

std::string in_other(const TensorEntry& tensor) {
  return fmt::format("other/{}", escape_component(tensor.name));
}

/// Whether it is none of DeepSpeed's, but what a trainer added.
bool is_of_client(const TensorEntry& tensor) {
  const auto* first = tensor.path.empty() ? nullptr : std::get_if<std::string>(&tensor.path[0]);
  return first != nullptr && *first == kClientState;
}

/// DeepSpeed's tensors, by what they are: weights in full precision, those that the model computes
/// with, and the optimizer's state. `only_module`: nothing but these is there.
std::string in_zero(std::string_view role, std::string_view name, bool only_module) {
  if (role == "fp32" || (only_module && role == "module") || role == "frozen" || role == "buffer")
    return in_model(name);
  if (role == "module") return fmt::format("module/{}", escape_component(name));
  return in_optimizer(name, role);
}

/// Megatron's tensors: the model's by their names with dots, all else by its whole name.
std::string in_megatron(const TensorEntry& tensor) {
  const auto* root = std::get_if<std::string>(&tensor.path[0]);
  std::string name;
  for (std::size_t i = 1; root != nullptr && *root == "model" && i < tensor.path.size(); ++i) {
    const auto* key = std::get_if<std::string>(&tensor.path[i]);
    if (key == nullptr) return fmt::format("megatron/{}", escape_component(tensor.name));
    name += (i == 1 ? "" : ".") + *key;
  }
  return name.empty() ? fmt::format("megatron/{}", escape_component(tensor.name)) : in_model(name);
}

bool starts_with(const std::vector<PathKey>& path, const std::vector<PathKey>& start) {
  return path.size() > start.size() && std::equal(start.begin(), start.end(), path.begin());
}

/// Whether the tensor is `more` keys below a path; the last one is a text.
bool is_below(const TensorEntry& tensor, const std::vector<PathKey>& path, std::size_t more) {
  return tensor.path.size() == path.size() + more && starts_with(tensor.path, path) &&
         std::holds_alternative<std::string>(tensor.path.back());
}

/// `name` behind the keys of `path` that it starts with, joined as names of tensors are; nothing
/// where it does not.
std::optional<std::string_view> behind(std::string_view name, const std::vector<PathKey>& path) {
  for (const PathKey& key : path) {
    std::string joined;
    if (const auto* text = std::get_if<std::string>(&key)) {
      for (const char c : *text) {
        if (c == '/' || c == '\\') joined += '\\';
        joined += c;
      }
    } else {
      joined = std::to_string(std::get<std::int64_t>(key));
    }
    joined += '/';
    if (!name.starts_with(joined)) return std::nullopt;
    name.remove_prefix(joined.size());
  }
  return name;
}

/// Whether it is in a dict that is called as a model's usually are.
bool is_in_dict(const TensorEntry& tensor) {
  return std::find(kModelKeys.begin(), kModelKeys.end(), key_at(tensor, 1)) != kModelKeys.end();
}

/// `beside`: it is known to be no tensor of the model.
std::string by_path(const TensorEntry& tensor, bool beside) {
  const std::string_view last = key_at(tensor, 0);
  const std::string_view before = key_at(tensor, 1);
  if (tensor.path.size() == 3 && key_at(tensor, 2) == kOwnKey && before == kOwnTensors) {
    return std::string(last);
  }
  if (!last.empty() && !before.empty() && key_at(tensor, 2) == "state" &&
      key_at(tensor, 3) == "optimizer") {
    return in_optimizer(before, last);
  }
  if (auto name = in_flattened(tensor)) return std::move(*name);
  if (beside) return in_other(tensor);
  if (!last.empty() && (tensor.path.size() == 1 || is_in_dict(tensor))) return in_model(last);
  return in_model(tensor.name);
}

}  // namespace

ContainerNames::ContainerNames(const Manifest& manifest)
    : is_container_(manifest.is_container()),
      is_deepspeed_(manifest.format == "deepspeed"),
      is_megatron_(manifest.format == "megatron") {
  if (is_deepspeed_) {
    const auto& tensors = manifest.tensors.all();
    is_module_ = std::all_of(tensors.begin(), tensors.end(), [](const TensorEntry& tensor) {
      return is_of_client(tensor) || (tensor.path.size() == 2 && key_at(tensor, 1) == "module");
    });
  }
  if (manifest.format != "torch" && manifest.format != "dcp") return;
  try {
    read_documents(manifest);
  } catch (const nlohmann::ordered_json::exception&) {
    // They are there for convenience: without them the paths have to do.
  }
}

void ContainerNames::read_documents(const Manifest& manifest) {
  const auto roles = document_of(manifest.documents, "roles");
  if (roles.contains("model")) model_ = path_from(roles["model"]);
  if (roles.contains("optimizer")) optimizer_ = path_from(roles["optimizer"]);
  if (roles.contains("ema")) ema_ = path_from(roles["ema"]);
  std::set<std::string> taken;
  for (const auto& json : document_of(manifest.documents, "optimizers")) {
    if (!json.at("parameters").is_array()) continue;
    auto path = path_from(json.at("path"));
    if (!path) continue;
    Optimizer optimizer;
    optimizer.path = std::move(*path);
    std::size_t next = 0;
    bool is_new = true;
    for (const auto& group : json.at("param_groups")) {
      for (const auto& number : group.at("params")) {
        const auto name = json["parameters"].at(next++).get<std::string>();
        if (number.is_string()) continue;  // a name already
        is_new = taken.insert(name).second && is_new;
        optimizer.parameters.emplace(number.get<std::int64_t>(), name);
      }
    }
    if (is_new) optimizers_.push_back(std::move(optimizer));  // else two have state of one name
  }
}

std::string ContainerNames::of(const TensorEntry& tensor) const {
  if (is_container_) return tensor.name;
  if (is_deepspeed_ && is_of_client(tensor)) return in_other(tensor);
  if (is_deepspeed_ && tensor.path.size() == 2)
    return in_zero(key_at(tensor, 1), key_at(tensor, 0), is_module_);
  if (is_megatron_ && !tensor.path.empty()) return in_megatron(tensor);
  if (model_ && is_below(tensor, *model_, 1)) return in_model(key_at(tensor, 0));
  if (model_ && (tensor.path.empty() || starts_with(tensor.path, *model_))) {
    // Dicts in the model's dict, and names that a user gave.
    if (is_in_dict(tensor) && !key_at(tensor, 0).empty()) return in_model(key_at(tensor, 0));
    if (const auto name = behind(tensor.name, *model_)) return in_model(*name);
  }
  if (ema_ && is_below(tensor, *ema_, 1)) {
    return fmt::format("ema/{}", escape_component(key_at(tensor, 0)));
  }
  for (const Optimizer& optimizer : optimizers_) {
    if (!is_below(tensor, optimizer.path, 3) || key_at(tensor, 2) != "state") continue;
    const auto* number = std::get_if<std::int64_t>(&tensor.path[optimizer.path.size() + 1]);
    if (number == nullptr) return in_optimizer(key_at(tensor, 1), key_at(tensor, 0));
    const auto parameter = optimizer.parameters.find(*number);
    if (parameter != optimizer.parameters.end()) {
      return in_optimizer(parameter->second, key_at(tensor, 0));
    }
  }
  const bool beside =
      (model_ && !tensor.path.empty()) || (optimizer_ && starts_with(tensor.path, *optimizer_));
  return by_path(tensor, beside);
}

std::map<std::string, std::string> aliases_in(const std::map<std::string, std::string>& documents) {
  std::map<std::string, std::string> aliases;
  const auto json = document_of(documents, "model");
  const auto list = json.is_object() ? json.find("aliases") : json.end();
  if (list == json.end() || !list->is_object()) return aliases;
  for (const auto& [alias, name] : list->items()) {
    if (name.is_string()) aliases[in_model(alias)] = in_model(name.get<std::string>());
  }
  return aliases;
}

std::string plain_name(const std::string& name) {
  if (!name.starts_with(kModel)) return name;
  std::string plain = unescape_component(std::string_view(name).substr(kModel.size()));
  return in_model(plain) == name && !looks_like_path(plain) ? plain : name;
}

bool looks_like_path(std::string_view name) {
  return name.starts_with(kModel) || name.starts_with("optimizer/") || name.starts_with("ranks/");
}

}  // namespace cairn::detail::names
