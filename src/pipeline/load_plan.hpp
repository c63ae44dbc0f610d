#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cairn/config.hpp"
#include "cairn/context.hpp"
#include "cairn/manifest.hpp"
#include "pipeline/checkpoint_names.hpp"

namespace cairn::detail {

// Which tensors of a checkpoint fill which of a model, by the rules of a loading strategy. Pure:
// plan_load on every rank for what that rank holds, judge_load for what all ranks planned together.

/// A parameter or buffer of the model on this rank.
struct WantedTensor {
  std::vector<std::string> names;  ///< dotted; it is saved under the first
  Shape shape;                     ///< global
  bool optional = false;           ///< it may be absent from any checkpoint (a new adapter)
};

/// What becomes of a tensor of the checkpoint. The ranks' votes are united by maximum.
enum class Use : std::uint64_t {
  none = 0,
  passed = 1,  ///< the model has it, and it is not to be loaded
  tied = 2,    ///< its value is loaded under another name
  loaded = 3,
  resharded = 4,  ///< loaded, by some rank as a piece that the checkpoint does not hold as such
};

/// What the load of a piece of a tensor of the checkpoint is: loaded or resharded. Local.
CAIRN_EXPORT Use use_of(const TensorEntry& tensor, const Placement& piece);

/// What else there is to tell, in any order.
struct LoadNotes {
  std::vector<std::string> missing;
  std::vector<ShapeMismatch> mismatched;
  std::vector<SkippedTensor> skipped;
  std::vector<std::string> warnings;
};
CAIRN_EXPORT std::string encode(const LoadNotes& notes);
CAIRN_EXPORT LoadNotes decode_notes(const std::string& text);
/// Adds what `notes` does not have yet.
CAIRN_EXPORT void unite(LoadNotes& notes, const LoadNotes& more);

struct PlannedTensor {
  bool load = false;
  std::size_t position = 0;  ///< in the manifest
  std::string source;        ///< the dotted name by which it was found
};

struct LoadPlan {
  std::vector<PlannedTensor> tensors;  ///< one for each that is wanted
  std::vector<std::uint64_t> used;     ///< Use, by position in the manifest
  LoadNotes notes;
};

/// Whether names that only one side has are errors.
CAIRN_EXPORT bool is_strict(const LoadingConfig& loading);

/// `aliases`: dotted names that the checkpoint knows beside its tensors' own, and what they stand
/// for. Local. Errors: mismatch (missing names where strict; other shapes where not to be skipped).
CAIRN_EXPORT LoadPlan plan_load(const Manifest& manifest, const CheckpointNames& names,
                                const std::map<std::string, std::string>& aliases,
                                const std::vector<WantedTensor>& wanted,
                                const LoadingConfig& loading);

/// How many of the dotted names `wanted` the checkpoint has behind each of the prefixes. Local.
CAIRN_EXPORT std::vector<std::uint64_t> count_matches(const Manifest& manifest,
                                                      const std::vector<std::string>& prefixes,
                                                      const std::vector<std::string>& wanted);

/// The report on what all ranks planned. `used` and `notes` are united over the ranks;
/// `with_optimizer`: any rank loads an optimizer. Local, the same on all ranks.
/// Errors: mismatch (unexpected names where strict, too few that match).
CAIRN_EXPORT LoadReport judge_load(const Manifest& manifest, const CheckpointNames& names,
                                   const std::vector<std::uint64_t>& used, const LoadNotes& notes,
                                   const LoadingConfig& loading, bool with_optimizer);

/// "'a', 'b', 'c' and 7 more"
CAIRN_EXPORT std::string list_some(const std::vector<std::string>& names);

}  // namespace cairn::detail
