#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cairn/export.hpp"
#include "cairn/manifest.hpp"

namespace cairn::detail::names {

// A container keeps a model's tensors below `model/` and the optimizer's state below
// `optimizer/<parameter>/`, components escaped. Other formats have a model's tensors under plain
// names, or, where a file holds more than a model, at the end of a path of keys.

/// What tensors of a checkpoint are called in a container; in a container, as they are. What the
/// documents `roles` and `optimizers` (docs/formats.md) say about the file goes first: weights,
/// averaged weights (`ema/x`), and the parameters that an optimizer knows by numbers. Then the end
/// of a path decides: a name below "model", "state_dict" and the like; parameter and slot below
/// "optimizer" and "state"; a container's own name below "cairn" and "tensors". All else is
/// `other/<its name>` where `roles` knows the model, or it is of an optimizer, else a tensor of the
/// model. A tensor without a path (a user gave it a name) is told by the start of its name. All
/// members are Local.
class ContainerNames {
 public:
  explicit ContainerNames(const Manifest& manifest);
  std::string of(const TensorEntry& tensor) const;

 private:
  using Path = std::vector<PathKey>;
  struct Optimizer {
    Path path;
    std::unordered_map<std::int64_t, std::string> parameters;
  };
  void read_documents(const Manifest& manifest);

  bool is_container_;
  bool is_deepspeed_;
  bool is_megatron_;
  bool is_module_ = false;  ///< DeepSpeed's, and nothing but the module
  std::optional<Path> model_;
  std::optional<Path> optimizer_;  ///< the first one
  std::optional<Path> ema_;
  std::vector<Optimizer> optimizers_;
};

/// What the document `model` of a container says: tensors' names that stand for others', as
/// containers name both. Empty where there is no such document, or it is broken. Local.
std::map<std::string, std::string> aliases_in(const std::map<std::string, std::string>& documents);

/// Below these keys, in files of formats with paths, are what cairn says of a container: step and
/// documents, and tensors with no other place, by their names there.
inline constexpr std::string_view kOwnKey = "cairn";
/// The first key in the paths of tensors that a trainer added to a checkpoint of DeepSpeed's.
inline constexpr std::string_view kClientState = "client_state";
inline constexpr std::string_view kOwnTensors = "tensors";

/// The inverse for a model's tensor: its plain name. Any other path of a container, and one that
/// the plain name would not lead back to, stays. Local.
std::string plain_name(const std::string& name);

/// Whether a plain name looks like the path of a container. Local.
bool looks_like_path(std::string_view name);

}  // namespace cairn::detail::names
