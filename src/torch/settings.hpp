#pragma once

#include <filesystem>
#include <string_view>

#include "cairn/torch.hpp"
#include "trainer/states.hpp"

namespace cairn::detail {

// What a CheckpointManager makes of its configuration. Local, but for what
// says otherwise.

SaveOptions save_options(const Config& config, const ManagerOptions& options);
LoadOptions load_options(const Config& config, const LoadingConfig& loading);
/// Warns of what the configuration says and nothing acts on.
void warn_of_idle_keys(const SaveConfig& save);
/// Makes the run go on from its own checkpoint at `path`, whatever it began with.
void resume_from(const std::filesystem::path& path, Config& config);
/// Whether all ranks mean the same. Collective. Errors: mismatch.
void compare(const Comm& comm, std::string_view step, const Config& config, const States& states);
/// What `config` means, after checks on all ranks. Collective. Errors: usage, mismatch.
Config settled(const Comm& comm, Config config);

}  // namespace cairn::detail
