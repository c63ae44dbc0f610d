#pragma once

#include <string>
#include <string_view>

#include "cairn/export.hpp"
#include "cairn/manifest.hpp"

namespace cairn::detail::names {

// A container keeps a model's tensors below `model/` and the optimizer's state below
// `optimizer/<parameter>/`, components escaped. Other formats have a model's tensors under plain
// names, or, where a file holds more than a model, at the end of a path of keys.

/// What a tensor of another format is called in a container: by the end of its path (a name below
/// "model", "state_dict" and the like; parameter and slot below "optimizer" and "state"), else as a
/// tensor of the model. Local.
std::string container_name(const TensorEntry& tensor);

/// The inverse for a model's tensor: its plain name. Any other path of a container, and one that
/// the plain name would not lead back to, stays. Local.
std::string plain_name(const std::string& name);

/// Whether a plain name looks like the path of a container. Local.
bool looks_like_path(std::string_view name);

/// "weights-00001000.h5": the model of a step alone, which no resume takes for a checkpoint. Local.
CAIRN_EXPORT std::string weights_file(std::uint64_t step);

}  // namespace cairn::detail::names
