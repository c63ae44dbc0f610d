#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace cairn::detail {

/// The text of a small file; nothing where there is none. Local. Errors: io; corrupt (over 64 KiB).
std::optional<std::string> read_small_file(const std::filesystem::path& path);
/// Makes or replaces a small file atomically and durably, by way of `partial` beside it, a name that
/// nobody else uses. `point` names the write to fault injection. Local. Errors: io, not_found (the
/// directory).
void write_small_file(const std::filesystem::path& path, const std::filesystem::path& partial,
                      std::string_view text, std::string_view point);

/// Makes an empty file where there is none; others may make the same one at the same time. Local.
/// Errors: io, not_found (the directory).
void touch_file(const std::filesystem::path& path);

}  // namespace cairn::detail
