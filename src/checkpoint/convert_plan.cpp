#include "checkpoint/convert_plan.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/throw.hpp"
#include "checkpoint/filter.hpp"
#include "checkpoint/packed.hpp"
#include "manifest/container_names.hpp"
#include "manifest/names.hpp"
#include "transfer/cast.hpp"

namespace cairn::detail {
namespace {

using Json = nlohmann::ordered_json;

/// What says how files were written, and is said anew of others.
bool is_origin(std::string_view document) {
  return document == "topology" || document == "provenance" || document == "index" ||
         document == "shards";
}

class Planner {
 public:
  Planner(const Manifest& source, const ConvertOptions& options)
      : source_(source), options_(options), marked_(is_marked(source)) {}

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
    check_names();
    plan_.step = source_.commit.step;
    if (options_.to == TargetFormat::cairn) {
      add_documents();
    } else {
      add_metadata();
    }
    plan_.result.tensors = plan_.tensors.size();
    return std::move(plan_);
  }

 private:
  bool to_container() const { return options_.to == TargetFormat::cairn; }

  std::string renamed(std::string name) const {
    for (const auto& [from, to] : options_.rename) {
      if (name.starts_with(from)) name.replace(0, from.size(), to);
    }
    return name;
  }

  std::string container_name(const TensorEntry& tensor) const {
    const bool is_path = source_.is_container() || (marked_ && names::looks_like_path(tensor.name));
    return is_path ? tensor.name : names::container_name(tensor);
  }

  std::string target_name(const TensorEntry& tensor) const {
    TensorEntry wanted;
    wanted.name = renamed(tensor.name);
    if (wanted.name == tensor.name) wanted.path = tensor.path;  // a new name leads elsewhere
    if (to_container()) return container_name(wanted);
    return source_.is_container() ? names::plain_name(wanted.name) : wanted.name;
  }

  void take(std::size_t position, const TensorEntry& tensor) {
    if (options_.weights_only && !container_name(tensor).starts_with("model/")) return;
    if (source_.is_container() && names::is_rank_blob(tensor.name)) {
      plan_.result.left_out.push_back(tensor.name);
      return;
    }
    TensorEntry entry;
    entry.name = target_name(tensor);
    entry.dtype = tensor.dtype;
    entry.shape = tensor.shape;
    if (options_.dtype && is_float(tensor.dtype) && *options_.dtype != tensor.dtype) {
      entry.dtype = *options_.dtype;
      plan_.result.casts.push_back({entry.name, tensor.dtype, entry.dtype});
    }
    plan_.result.bytes += entry.bytes();
    plan_.tensors.push_back(std::move(entry));
    plan_.sources.push_back(position);
  }

  /// What a cast can start from: floats can become floats, and nothing else can.
  bool is_float(DType dtype) const { return can_cast(dtype, DType::f32); }

  void check_names() const {
    const TensorNames by_name{std::span<const TensorEntry>(plan_.tensors)};
    if (const auto twice = by_name.duplicate()) {
      fail(Errc::mismatch, "two tensors would be called '{}'", *twice);
    }
    if (!to_container()) return;
    for (const TensorEntry& tensor : plan_.tensors) names::check_tensor_name(tensor.name);
  }

  /// What the source says of itself, and what cairn packed into the metadata of safetensors.
  void add_documents() {
    if (options_.weights_only) return;
    for (const auto& [name, text] : source_.documents) {
      if (!is_origin(name)) plan_.documents[name] = text;
    }
    if (!marked_) return;
    Unpacked packed = unpack(source_);
    if (packed.step) plan_.step = *packed.step;
    for (auto& [name, text] : packed.documents) plan_.documents[name] = std::move(text);
    plan_.documents.erase(std::string(kSafetensorsMetadata));
    if (!packed.rest.empty()) {
      plan_.documents[std::string(kSafetensorsMetadata)] = packed.rest.dump();
    }
  }

  void add_metadata() {
    Json metadata = metadata_of(source_);
    if (source_.is_container() && !options_.weights_only) {
      for (const auto& [name, text] : source_.documents) {
        if (name == kSafetensorsMetadata || is_origin(name)) continue;
        metadata[fmt::format("{}{}", kPackedDocument, name)] = text;
      }
      if (source_.commit.step != 0) metadata[std::string(kPackedStep)] = std::to_string(plan_.step);
    }
    const bool has_paths =
        std::any_of(plan_.tensors.begin(), plan_.tensors.end(),
                    [](const auto& t) { return names::looks_like_path(t.name); });
    const bool has_documents = metadata.size() > metadata_of(source_).size();
    if (source_.is_container() && (has_paths || has_documents))
      metadata[std::string(kPackedMark)] = "1";
    if (!metadata.empty()) plan_.documents[std::string(kSafetensorsMetadata)] = metadata.dump();
  }

  const Manifest& source_;
  const ConvertOptions& options_;
  const bool marked_;
  ConvertPlan plan_;
};

}  // namespace

ConvertPlan plan_conversion(const Manifest& source, const ConvertOptions& options) {
  if (options.dtype && !can_cast(DType::f64, *options.dtype)) {
    fail(Errc::usage, "tensors can be converted to f64, f32, f16 and bf16, not to {}",
         to_string(*options.dtype));
  }
  return Planner(source, options).plan();
}

}  // namespace cairn::detail
