#pragma once

#include <filesystem>
#include <string>

#include "cairn/legacy.hpp"

namespace cairn::detail {

/// What of a CheckpointManager legacy functions need.
struct ManagerAccess {
  /// load_checkpoint with another source and strategy, and without modifiers. Collective.
  static CheckpointContext load(CheckpointManager& manager, torch::nn::Module& model,
                                const Source& source, const LoadingConfig& loading);
};

/// What of a configuration does the same, as YAML. Local.
CAIRN_EXPORT std::string legacy_replacement(const std::filesystem::path& path,
                                            const LoadingConfig& loading);
/// What is printed where a legacy function is called: the place, and what to paste. Local.
CAIRN_EXPORT std::string legacy_warning(const LegacyCall& call, const std::filesystem::path& path,
                                        const LoadingConfig& loading);

}  // namespace cairn::detail
