#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

namespace cairn::detail {

/// A function that tells, from any thread, whether work on a file goes on: its number changes when
/// the thread that called activity_of reads or writes anything, or when any process writes to
/// `path`. The function blocks where the file system does. Never throws. Local.
std::function<std::uint64_t()> activity_of(const std::filesystem::path& path);

}  // namespace cairn::detail
