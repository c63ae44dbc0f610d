#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cairn/manifest.hpp"

namespace cairn::detail::megatron {

/// What the ranks' files say about how the model is divided.
struct Division {
  int tensor_ranks = 1;
  int pipeline_ranks = 1;
  double checkpoint_version = 0;  ///< decides the order of rows in query_key_value
  /// Whether the first layer of the MLP is two, side by side on each rank; nothing where the files
  /// do not say.
  std::optional<bool> gated;
};

/// The tensors of one rank's file, with paths from its root.
struct RankTensors {
  int tensor = 0;
  int pipeline = 0;
  std::string label;  ///< the directory's name
  std::vector<TensorEntry> tensors;
};

/// How a parameter is divided among tensor-parallel ranks.
enum class Split : std::uint8_t {
  unknown,
  replicated,
  columns,  ///< dimension 0, one behind the other
  rows,     ///< dimension 1
  halves,   ///< dimension 0; each rank has a piece of each of two matrices
  thirds,   ///< the same of three
};

/// The split of a parameter, by its name with dots ("encoder.layers.0.mlp.dense_h_to_4h.weight").
/// Local.
Split split_of(const std::string& name, const Division& division);

/// Puts the model's tensors (below `model`, `model0`, ...) of all ranks together, as far as it is
/// known how. All others keep their names, with the label of their rank in front where there are
/// several. `ranks` are in the order of stages, and within one of tensor ranks. Local. Errors:
/// corrupt (parts do not fit to each other).
struct Joined {
  std::vector<TensorEntry> tensors;
  std::uint64_t joined = 0;    ///< tensors put together from several files
  std::uint64_t separate = 0;  ///< tensors of the model that stay apart
};
Joined join(std::vector<RankTensors> ranks, const Division& division);

}  // namespace cairn::detail::megatron
