#include "checkpoint/convert_plan.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <utility>

#include "base/throw.hpp"
#include "cairn/tensor_view.hpp"
#include "checkpoint/convert_documents.hpp"
#include "checkpoint/convert_tree.hpp"
#include "checkpoint/filter.hpp"
#include "formats/torch/values.hpp"
#include "manifest/container_names.hpp"
#include "manifest/names.hpp"
#include "transfer/cast.hpp"

namespace cairn::detail {
namespace {

constexpr std::string_view kModel = "model/";

using Json = nlohmann::ordered_json;

/// {from, to}: the start of names. Whether it was one of this name.
bool rename(std::string& name, const std::pair<std::string, std::string>& rule) {
  if (!name.starts_with(rule.first)) return false;
  name.replace(0, rule.first.size(), rule.second);
  return true;
}

class Planner {
 public:
  Planner(const Manifest& source, const ConvertOptions& options)
      : source_(source),
        options_(options),
        travelling_(travelling_in(source)),
        names_(source),
        aliases_(names::aliases_in(travelling_.documents)) {}

  ConvertPlan plan() {
    const CompiledFilter select(options_.select);
    select.require_in(source_);
    for (std::size_t t = 0; t < source_.tensors.size(); ++t) {
      const TensorEntry& tensor = source_.tensors[t];
      if (select.matches(tensor.name)) take(t, tensor);
    }
    if (plan_.tensors.empty() && !source_.tensors.empty()) {
      fail(Errc::not_found, "no tensor of '{}' is wanted", source_.path().string());
    }
    check_rules(select);
    check_names();
    plan_.step = travelling_.step;
    if (!options_.weights_only) tell_left_out();
    switch (options_.to) {
      case TargetFormat::cairn:
        add_documents();
        break;
      case TargetFormat::safetensors:
        if (options_.weights_only || !(source_.is_container() || travelling_.packed)) {
          tell_aliases();
        }
        add_metadata();
        break;
      case TargetFormat::torch:
      case TargetFormat::lightning:
        plan_torch(source_, travelling_, options_, plan_);
        break;
    }
    plan_.result.tensors = plan_.tensors.size();
    return std::move(plan_);
  }

 private:
  bool to_container() const { return options_.to == TargetFormat::cairn; }

  std::string container_name(const TensorEntry& tensor) const {
    return detail::container_name(travelling_, names_, tensor);
  }

  std::string target_name(const TensorEntry& tensor) const {
    const TensorEntry wanted = renamed_entry(source_, options_, tensor);
    if (to_container()) return container_name(wanted);
    if (options_.to != TargetFormat::safetensors) return wanted.name;
    // A model alone has plain names, wherever it was in its file.
    if (options_.weights_only) {
      return names::plain_name(container_name(wanted));
    }
    return source_.is_container() ? names::plain_name(wanted.name) : wanted.name;
  }

  void take(std::size_t position, const TensorEntry& tensor) {
    if (options_.weights_only && !container_name(tensor).starts_with("model/")) return;
    if (source_.is_container() && names::is_rank_blob(tensor.name)) {
      plan_.result.left_out.push_back({tensor.name, "the state of single ranks"});
      return;
    }
    TensorEntry entry;
    entry.name = target_name(tensor);
    if (to_container() && is_alias(tensor, entry.name)) return;
    entry.dtype = tensor.dtype;
    entry.shape = tensor.shape;
    const auto cast = options_.casts.find(tensor.name);
    if (options_.dtype && is_float(tensor.dtype)) entry.dtype = *options_.dtype;
    if (cast != options_.casts.end()) entry.dtype = cast->second;
    if (entry.dtype != tensor.dtype) {
      plan_.result.casts.push_back({entry.name, tensor.dtype, entry.dtype});
    }
    plan_.result.bytes += entry.bytes();
    plan_.tensors.push_back(std::move(entry));
    plan_.sources.push_back(position);
  }

  /// Whether a container need not hold a tensor of a file of PyTorch's, because it is another one
  /// (tied weights). Which of them it holds is as it was in the container that the file came from.
  bool is_alias(const TensorEntry& tensor, const std::string& name) {
    if (source_.format != "torch" || tensor.extents.empty() || !name.starts_with("model/")) {
      return false;
    }
    const auto same = std::tuple(tensor.extents[0].file, tensor.extents[0].offset, tensor.dtype,
                                 tensor.shape, tensor.strides);
    const auto other = aliases_.find(name);
    if (first_.empty() && !aliases_.empty()) find_first_names();
    const auto [known, is_new] =
        first_.try_emplace(same, other == aliases_.end() ? name : other->second);
    if (known->second == name) return false;
    found_aliases_[name] = known->second;
    return true;
  }

  /// Names that stand for others come from a container, and their tensors may come before the
  /// others'.
  void find_first_names() {
    for (const TensorEntry& tensor : source_.tensors) {
      if (tensor.extents.empty()) continue;
      const std::string name = target_name(tensor);
      if (!name.starts_with("model/") || aliases_.contains(name)) continue;
      first_.try_emplace(std::tuple(tensor.extents[0].file, tensor.extents[0].offset, tensor.dtype,
                                    tensor.shape, tensor.strides),
                         name);
    }
  }

  /// What a cast can start from: floats can become floats, and nothing else can.
  bool is_float(DType dtype) const { return can_cast(dtype, DType::f32); }

  /// A rule that renames nothing is a slip. Names of tied weights count, too.
  void check_rules(const CompiledFilter& select) const {
    std::vector<bool> used(options_.rename.size());
    const auto follow = [&](std::string name) {
      for (std::size_t r = 0; r < used.size(); ++r) {
        used[r] = rename(name, options_.rename[r]) || used[r];
      }
    };
    if (used.empty()) return;
    for (const TensorEntry& tensor : source_.tensors) {
      if (select.matches(tensor.name)) follow(tensor.name);
    }
    for (const auto& [alias, name] : aliases_) follow(alias);
    const auto idle = std::find(used.begin(), used.end(), false);
    if (idle == used.end()) return;
    fail(Errc::usage,
         "no tensor's name starts with '{}', which is to be renamed; 'cairn inspect' lists them",
         options_.rename[static_cast<std::size_t>(idle - used.begin())].first);
  }

  void check_names() const {
    // Of a tree, paths count.
    if (!to_container() && options_.to != TargetFormat::safetensors) return;
    const TensorNames by_name{std::span<const TensorEntry>(plan_.tensors)};
    if (const auto twice = by_name.duplicate()) {
      const bool alike = TensorNames(source_.tensors).duplicate().has_value();
      fail(Errc::mismatch, "two tensors would be called '{}'; {}", *twice,
           alike ? "their keys are a text and a number that look alike: save one under another key"
                 : "give one of them another name with --rename");
    }
    if (!to_container()) return;
    for (const TensorEntry& tensor : plan_.tensors) names::check_tensor_name(tensor.name);
  }

  /// What the source says of itself, or cairn packed into it.
  void add_documents() {
    if (!options_.weights_only) {
      plan_.documents = travelling_.documents;
      // So that it comes back byte for byte.
      if (to_container() && source_.format == "safetensors" && !travelling_.packed &&
          !metadata_of(source_).contains(kAdded)) {
        plan_.documents.try_emplace(kMetadata, "null");
      }
      if (is_tree(source_) && !travelling_.packed) add_tree();
      if (lacks_state() && plan_.documents.erase("optimizer") != 0) {
        plan_.result.left_out.push_back({"optimizer", std::string(kNoState)});
      }
    }
    if (options_.weights_only || !options_.rename.empty()) take_aliases_along();
    if (found_aliases_.empty() || names::aliases_in(plan_.documents) == found_aliases_) return;
    Json model = document_of(plan_.documents, "model");
    if (!model.is_object()) model = {{"aliases", Json::object()}, {"quantized", Json::object()}};
    Json aliases = Json::object();
    for (const auto& [alias, name] : found_aliases_) {
      aliases[unescape_component(alias.substr(kModel.size()))] =
          unescape_component(name.substr(kModel.size()));
    }
    model["aliases"] = std::move(aliases);
    plan_.documents["model"] = model.dump();
  }

  /// Names that stand for others, of a source that has their tensors once.
  void take_aliases_along() {
    if (source_.format == "torch") return;
    std::map<std::string, std::string> names;  // now, by those in a container
    for (std::size_t t = 0; t < plan_.tensors.size(); ++t) {
      names[container_name(source_.tensors[plan_.sources[t]])] = plan_.tensors[t].name;
    }
    for (const auto& [alias, name] : aliases_) {
      const auto now = names.find(name);
      if (now == names.end() || !now->second.starts_with(kModel)) continue;
      const std::string called = source_.is_container() ? renamed(options_, alias) : alias;
      if (called.starts_with(kModel)) found_aliases_[called] = now->second;
    }
  }

  /// Whether the source has state of an optimizer, and none of it is taken.
  bool lacks_state() const {
    const auto is_state = [&](const TensorEntry& tensor) {
      return container_name(tensor).starts_with("optimizer/");
    };
    return !options_.select.is_empty() &&
           std::none_of(plan_.sources.begin(), plan_.sources.end(),
                        [&](std::size_t t) { return is_state(source_.tensors[t]); }) &&
           std::any_of(source_.tensors.begin(), source_.tensors.end(), is_state);
  }

  /// Tied weights, whose other names safetensors have no place for.
  void tell_aliases() {
    std::set<std::string> taken;
    for (const std::size_t t : plan_.sources) taken.insert(container_name(source_.tensors[t]));
    for (const auto& [alias, name] : aliases_) {
      if (!taken.contains(name) || taken.contains(alias)) continue;
      plan_.result.left_out.push_back(
          {names::plain_name(alias),
           fmt::format("another name of '{}', which is there once", names::plain_name(name))});
    }
  }

  /// The paths that the names of a container do not tell, in the order of the file.
  void add_tree() {
    const CompiledFilter select(options_.select);
    const TensorNames taken{std::span<const TensorEntry>(plan_.tensors)};
    Json tree = Json::array();
    for (const TensorEntry& tensor : source_.tensors) {
      const std::string name = target_name(tensor);
      const bool selected = select.matches(tensor.name);
      if (!selected && taken.find(name)) continue;  // another one has the name now
      const auto alias = found_aliases_.find(name);
      const std::string called = renamed(options_, tensor.name);
      const bool is_new = selected && called != tensor.name;
      const auto path = is_new ? renamed_path(source_, tensor, called) : tensor.path;
      tree.push_back({alias == found_aliases_.end() ? name : alias->second, torch::json_of(path)});
    }
    plan_.documents[kTree] = tree.dump();
  }

  /// What no other format holds, and what only some do.
  void tell_left_out() {
    auto& left_out = plan_.result.left_out;
    if (source_.format == "dcp") {
      for (const Json& name : document_of(source_.documents, "values")) {
        left_out.push_back({name.get<std::string>(), "a value that cairn does not read"});
      }
    }
    if (to_container() || source_.is_container() || travelling_.packed) return;
    const bool stays = is_tree(source_) && options_.to != TargetFormat::safetensors;
    for (const auto& [name, text] : source_.documents) {
      const bool kept = name == kMetadata && options_.to == TargetFormat::safetensors;
      const bool in_tree = (name == "model" && options_.to != TargetFormat::safetensors) ||
                           (name == "optimizer" && options_.to == TargetFormat::lightning);
      if (kept || in_tree || is_origin(name) || name == "values") continue;
      if (!describes_tree(name)) {
        left_out.push_back({name, name == "optimizer"
                                      ? "groups of parameters, for which this format has no place; "
                                        "a container has, and what is made of it"
                                      : "a document that this format has no place for"});
        continue;
      }
      const bool holds = name == "objects" || name == "arrays" || name == "opaque";
      const std::size_t count = holds && !stays ? document_of(source_.documents, name).size() : 0;
      if (count == 0) continue;
      left_out.push_back(
          {name, fmt::format("{} beside the tensors, for which there is no place",
                             count == 1 ? "1 value" : fmt::format("{} values", count))});
    }
  }

  void add_metadata() {
    Json metadata = metadata_of(source_);
    // Transformers loads no file without it. What was made from a file that has none gets none.
    const bool adds_format =
        source_.format != "safetensors" && !source_.documents.contains(kMetadata);
    if (adds_format) metadata["format"] = "pt";
    if (source_.is_container()) {
      if (adds_format) metadata[kAdded] = "format";
      const Json plain = metadata;
      if (!options_.weights_only) metadata = with_travelling(std::move(metadata), travelling_);
      const bool has_paths =
          std::any_of(plan_.tensors.begin(), plan_.tensors.end(),
                      [](const auto& t) { return names::looks_like_path(t.name); });
      const Json others = other_paths();
      if (!others.empty()) metadata[kPaths] = others.dump();
      if (has_paths || metadata.size() > plain.size()) metadata[kMark] = "1";
    }
    const bool is_there = document_of(source_.documents, kMetadata).is_object();  // if empty
    if (!metadata.empty() || is_there) plan_.documents[kMetadata] = metadata.dump();
  }

  /// The names of a container that have become no model's, and do not look like a container's.
  Json other_paths() const {
    Json paths = Json::array();
    for (std::size_t t = 0; t < plan_.tensors.size(); ++t) {
      const std::string& name = plan_.tensors[t].name;
      const std::string before = renamed(options_, source_.tensors[plan_.sources[t]].name);
      if (name == before && !names::looks_like_path(name)) paths.push_back(name);
    }
    return paths;
  }

  using Place = std::tuple<std::uint32_t, std::uint64_t, DType, Shape, Shape>;

  const Manifest& source_;
  const ConvertOptions& options_;
  const Travelling travelling_;
  const names::ContainerNames names_;
  const std::map<std::string, std::string> aliases_;  // as the source's documents tell them
  std::map<Place, std::string> first_;                // who has a name for a place in the file
  std::map<std::string, std::string> found_aliases_;
  ConvertPlan plan_;
};

}  // namespace

std::string renamed(const ConvertOptions& options, std::string name) {
  for (const auto& rule : options.rename) rename(name, rule);
  return name;
}

std::vector<PathKey> renamed_path(const Manifest& source, const TensorEntry& tensor,
                                  const std::string& name) {
  const bool dotted = source.format == "dcp";
  const std::string separator = dotted ? "." : "/";
  const auto& path = tensor.path;
  const auto text_of = [&](const PathKey& key) {
    const auto* text = std::get_if<std::string>(&key);
    return dotted && text != nullptr ? *text : torch::name_of(std::vector<PathKey>{key});
  };
  std::string_view rest = name;
  std::size_t head = 0;
  std::size_t tail = path.size();
  for (; head + 1 < path.size() && rest.starts_with(text_of(path[head]) + separator); ++head) {
    rest.remove_prefix(text_of(path[head]).size() + 1);
  }
  for (; tail > head + 1 && rest.ends_with(separator + text_of(path[tail - 1])); --tail) {
    rest.remove_suffix(text_of(path[tail - 1]).size() + 1);
  }
  std::vector<PathKey> result(path.begin(), path.begin() + static_cast<std::ptrdiff_t>(head));
  if (dotted) {
    result.emplace_back(std::string(rest));
  } else {
    for (PathKey& key : torch::path_of_name(std::string(rest))) result.push_back(std::move(key));
  }
  result.insert(result.end(), path.begin() + static_cast<std::ptrdiff_t>(tail), path.end());
  return result;
}

TensorEntry renamed_entry(const Manifest& source, const ConvertOptions& options,
                          const TensorEntry& tensor) {
  TensorEntry entry;
  entry.name = renamed(options, tensor.name);
  if (entry.name == tensor.name) {
    entry.path = tensor.path;
  } else if (source.format == "deepspeed" && tensor.path.size() == 2) {
    const std::string role = std::get<std::string>(tensor.path[0]) + "/";
    if (entry.name.starts_with(role)) {
      entry.path = {tensor.path[0], entry.name.substr(role.size())};
    }
  }
  return entry;
}

ConvertPlan plan_conversion(const Manifest& source, const ConvertOptions& options) {
  if (options.dtype && !can_cast(DType::f64, *options.dtype)) {
    fail(Errc::usage, "tensors can be converted to f64, f32, f16 and bf16, not to {}",
         to_string(*options.dtype));
  }
  return Planner(source, options).plan();
}

}  // namespace cairn::detail
