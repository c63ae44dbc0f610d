#pragma once

#include <string>
#include <vector>

#include "formats/torch/archive.hpp"
#include "os/file.hpp"

namespace cairn::detail::torch {

/// The JSON document that anemoi's tools append to an archive, and where its arrays are: {member,
/// offset, bytes, metadata, supporting_arrays: [{name, dtype, shape, offset, bytes}]}. Empty where
/// there is none. What is wrong with it is a warning, for the weights do not depend on it. Local.
/// Errors: io.
std::string anemoi_metadata_of(const File& file, const Archive& archive,
                               std::vector<std::string>& warnings);

}  // namespace cairn::detail::torch
