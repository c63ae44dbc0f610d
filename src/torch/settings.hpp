#pragma once

#include <cstdint>

#include "cairn/torch.hpp"

namespace cairn::detail {

// What a CheckpointManager makes of its configuration. All Local.

SaveOptions save_options(const Config& config, const ManagerOptions& options);
/// Warns of what the configuration says and nothing acts on.
void warn_of_idle_keys(const SaveConfig& save);
/// What is equal for equal settings of a load.
std::uint64_t hash_of(const LoadingConfig& loading);

}  // namespace cairn::detail
