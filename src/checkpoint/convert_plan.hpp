#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/convert.hpp"
#include "formats/torch/writer.hpp"

namespace cairn::detail {

/// A file of PyTorch's, and what fills its storages.
struct TorchPlan {
  torch::NewFile file;
  /// By storage: a tensor as it lies in the source's files, of as many elements.
  std::vector<TensorEntry> runs;
};

/// What a conversion writes.
struct ConvertPlan {
  std::vector<TensorEntry> tensors;              ///< name, dtype and shape in the target
  std::vector<std::size_t> sources;              ///< of each: its position in the source
  std::map<std::string, std::string> documents;  ///< of the target; of safetensors, `__metadata__`
  std::uint64_t step = 0;
  TorchPlan torch;  ///< where that is the target's format
  ConvertResult result;
};

/// The name with FROM=TO applied. Local.
std::string renamed(const ConvertOptions& options, std::string name);
/// A tensor's name after --rename, with its path where that leads to the same place still: what
/// DeepSpeed's tensors are is told by the first part of their names. Local.
TensorEntry renamed_entry(const Manifest& source, const ConvertOptions& options,
                          const TensorEntry& tensor);
/// The path of a tensor that is called `name` now: keys before and behind what changed stay. Local.
std::vector<PathKey> renamed_path(const Manifest& source, const TensorEntry& tensor,
                                  const std::string& name);
/// Why an optimizer is not there.
inline constexpr std::string_view kNoState =
    "nothing of its state is selected, so that its groups are left out, too";

// Names change between containers and others as manifest/container_names.hpp says. What a container
// holds besides a model (`optimizer/...`) keeps its path in safetensors, which are then marked in
// their metadata, so that the way back leads to the same container. Its documents and step travel
// in the metadata, too.

/// The same on all ranks, for the same arguments. Local. Errors: those of convert_checkpoint.
ConvertPlan plan_conversion(const Manifest& source, const ConvertOptions& options);

}  // namespace cairn::detail
