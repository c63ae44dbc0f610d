#pragma once

#include <string>

#include "cairn/context.hpp"
#include "cairn/manifest.hpp"

namespace cairn::detail {

// All Local.

/// A random UUID (RFC 4122, version 4).
std::string new_uuid();
/// The document "lineage".
std::string lineage_document(const Lineage& lineage);
/// That of the checkpoint; empty where it has none. Errors: corrupt.
Lineage read_lineage(const Manifest& manifest);

/// That of a program which has loaded nothing yet; a new run gets the id `fresh`. Gives save.dir
/// its default, where the configuration has a root for runs.
Lineage begin_run(Config& config, const std::string& fresh);
/// That of the same program once it has loaded what `loaded` tells.
Lineage descend(const Lineage& run, const CheckpointContext& loaded);
/// Errors: usage, where a fork would save into the directory of the run that it comes from.
void check_fork(const Config& config);

}  // namespace cairn::detail
