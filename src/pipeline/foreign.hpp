#pragma once

#include <string>
#include <vector>

#include "cairn/export.hpp"
#include "cairn/manifest.hpp"

namespace cairn::detail {

// Checkpoints of other formats, told as a container would tell them, so that whatever loads a
// trainer needs to know one convention only.

/// Tensors below `model/` and `optimizer/<parameter>/<slot>`, as far as the file says which is
/// which (its documents "roles" and "optimizers", else names::container_name), all others below
/// `other/`; and the documents "context", "optimizer", "scheduler" and "lineage" from what a
/// training checkpoint of PyTorch, Lightning or anemoi holds. The document "optimizer" has a null
/// for its type, which PyTorch does not save; where its parameters can't be told it has "unusable",
/// the reason. A container that a trainer saved comes back as it is; one that was made from another
/// format gets the same documents as that, and its tensors beside the model the same names. Local,
/// the same on all ranks for equal manifests.
/// Errors: mismatch (two tensors get one name).
CAIRN_EXPORT Manifest as_container(Manifest manifest);

/// Prefixes below which the tensors of a model may lie that was wrapped when it was saved
/// ("module.", "model.model.", ...): those that names in the checkpoint begin with, shorter ones
/// first. None where a trainer of cairn's saved the checkpoint: the names are its own. Local.
CAIRN_EXPORT std::vector<std::string> wrapper_prefixes(const Manifest& manifest);

}  // namespace cairn::detail
