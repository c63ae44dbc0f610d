#pragma once

#include <string>

#include "cairn/context.hpp"
#include "cairn/manifest.hpp"

namespace cairn::detail {

/// A random UUID (RFC 4122, version 4).
std::string new_uuid();
/// The document "lineage".
std::string lineage_document(const Lineage& lineage);
/// That of the checkpoint; empty where it has none. Errors: corrupt.
Lineage read_lineage(const Manifest& manifest);
/// That of a run which begins with, or continues, what `loaded` tells.
Lineage descend(const Lineage& run, const CheckpointContext& loaded);

}  // namespace cairn::detail
